"""The former name of `python -m ops.simulators.provider`, kept for existing scripts."""

from ops.simulators.provider import main

if __name__ == "__main__":
    main()
