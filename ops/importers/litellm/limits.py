"""Times, retries and limits of a deployment, within what a route allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ops.importers.litellm.report import Report
from ops.importers.litellm.values import number
from producer.environment import Environment

MOST_RETRIES = 5
LONGEST_SECONDS = 86_400
_TIMES = {"timeout": "timeoutSeconds", "stream_timeout": "streamTimeoutSeconds"}
_COUNTS = {"rpm": "rpm", "tpm": "tpm", "max_parallel_requests": "maxConcurrency"}
_RETRIES = ("max_retries", "num_retries")


@dataclass(frozen=True)
class Limits:
    """`where`: the deployment's name in the report. `settings`: those of the whole file, for what it does not say itself."""

    where: str
    settings: Mapping[str, Any]
    environment: Environment
    report: Report

    READ: ClassVar[frozenset[str]] = frozenset((*_TIMES, *_COUNTS, *_RETRIES, "weight"))

    def of(self, given: Callable[[str], Any]) -> dict[str, Any]:
        """The fields of a route. `given`: a value of the deployment by its name in LiteLLM, None without one."""
        found: dict[str, Any] = {}
        defaults = {"timeout": self.settings.get("timeout", self.settings.get("request_timeout"))}
        defaults["stream_timeout"] = self.settings.get("stream_timeout")
        for name, ours in _TIMES.items():
            if (value := self._number(name, given(name), defaults[name])) is not None:
                found |= self._time(name, ours, value)
        for name, ours in _COUNTS.items():
            if (value := self._number(name, given(name))) is not None:
                found |= self._count(name, ours, value)
        if (weight := self._number("weight", given("weight"))) is not None:
            found["weight"] = weight
        asked = next((value for name in _RETRIES if (value := given(name)) is not None), None)
        if (retries := self._number("num_retries", asked, self.settings.get("num_retries"))) is not None:
            found["retries"] = min(int(retries), MOST_RETRIES)
            if retries > MOST_RETRIES:
                self.report.approximate(
                    self.where, f"{retries} retries are reduced to {MOST_RETRIES}, the most that a route allows"
                )
        return found

    def _number(self, name: str, own: Any, default: Any = None) -> float | int | None:
        value = number(own, self.environment)
        if value is None and own is not None:
            self.report.leave_out(self.where, f"{name}: {own!r} is not a number: set it on the route")
        return value if own is not None else number(default, self.environment)

    def _time(self, name: str, ours: str, seconds: float) -> dict[str, Any]:
        if seconds == 0:
            self.report.leave_out(self.where, f"{name} 0 would end every call: the route has its default {ours}")
            return {}
        if seconds > LONGEST_SECONDS:
            self.report.approximate(
                self.where, f"{name} {seconds} is reduced to {LONGEST_SECONDS} s, the most of a route"
            )
        return {ours: min(seconds, LONGEST_SECONDS)}

    def _count(self, name: str, ours: str, value: float) -> dict[str, Any]:
        if value == 0:
            self.report.leave_out(
                self.where, f"{name} 0 would stop the route: it has no such limit; `enabled: false` stops it"
            )
            return {}
        if value < 1 or value != int(value):
            self.report.approximate(
                self.where, f"{name} {value} becomes {max(1, int(value))}: a route counts in whole numbers"
            )
        return {ours: max(1, int(value))}
