"""The old name of `python -m ops.simulators.provider`; it goes on working."""

from ops.simulators.provider import main

if __name__ == "__main__":
    main()
