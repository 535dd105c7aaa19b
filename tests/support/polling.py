"""Wait for something to be true, without a guess of how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Poll until `condition` is true; its value. Never sleeps for a guess."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value
