"""The end of the web process, for those that wait: they are woken, and tell their clients to come back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Draining:
    """`begun`: the process was asked to stop."""

    def __init__(self) -> None:
        self.begun = False
        self._wake: set[Callable[[], None]] = set()

    def begin(self) -> None:
        self.begun = True
        for wake in tuple(self._wake):
            wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called when it begins."""
        self._wake.add(wake)
        try:
            yield
        finally:
            self._wake.discard(wake)
