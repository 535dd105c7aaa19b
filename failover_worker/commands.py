"""The two commands, started from the installed copy."""

from __future__ import annotations

from failover_worker.own_modules import claim_names


def worker() -> None:
    """`failover-worker`."""
    claim_names()
    from worker.cli import main

    main()


def failover() -> None:
    """`failover`."""
    claim_names()
    from ops.cli import main

    main()
