"""What many requests ask for at once is looked up for all of them together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def at_most_every(seconds: float, look: Callable[[], T]) -> Callable[[], T]:
    """`look`, whose result is used again for so many seconds. Threads that ask meanwhile wait for it. An error is not kept."""
    lock, looked_at = threading.Lock(), -math.inf
    found: list[T] = []

    def shared() -> T:
        nonlocal looked_at
        with lock:
            if time.monotonic() - looked_at > seconds:
                found[:] = [look()]
                looked_at = time.monotonic()
            return found[0]

    return shared
