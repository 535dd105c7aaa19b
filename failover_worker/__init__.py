"""failover-worker's public API, under a name that no application has.

    from failover_worker import LLMJob, Producer

It is the same as `producer`, and works where an application has a `producer.py`, `worker.py` or `ops.py` of its own.
"""

from __future__ import annotations

from failover_worker.own_modules import imported_by_themselves

with imported_by_themselves():
    from producer import *  # noqa: F403 - the whole of its public API, which is listed there
    from producer import __all__ as __all__
