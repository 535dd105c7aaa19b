"""The limit of open file descriptors of this process: sockets and files."""

from __future__ import annotations

import contextlib
import resource

WITHOUT_LIMIT = (1_048_576, 10_240)  # tried in turn where the hard limit is infinite: kernels have one of their own


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard limit, as far as the system allows. Returns the soft limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WITHOUT_LIMIT if hard == resource.RLIM_INFINITY else (hard,):
        if soft not in (resource.RLIM_INFINITY, wanted) and wanted > soft:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WITHOUT_LIMIT[0] if soft == resource.RLIM_INFINITY else soft
