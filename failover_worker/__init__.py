"""failover-worker's public API, under a name that no application has.

    from failover_worker import LLMJob, Producer

It is the same as `producer`, and works where an application has a `producer.py`, `worker.py` or `ops.py` of its own. It is
imported when one of its names is first asked for, so that the two commands, which ask for none, start sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from failover_worker.own_modules import imported_by_themselves

if TYPE_CHECKING:
    from producer import *  # noqa: F403 - the whole of its public API, which is listed there
    from producer import __all__ as __all__


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    with imported_by_themselves():  # all names at once: a second time would import second copies
        import producer

        public = {each: getattr(producer, each) for each in producer.__all__}
    globals().update(public, __all__=producer.__all__)
    if name not in globals():
        raise AttributeError(f"failover_worker has no {name!r}")
    return globals()[name]
