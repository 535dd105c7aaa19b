"""API keys of provider accounts: where each comes from, and which one a call uses.

The first source that has keys is used: the tenant's own keys (policies/tenants.yaml), keys put into this process, the key
file that routes.json names, the environment, `.env`. A call uses the first key of that source that was not refused lately.
A key is sent only to its provider; logs and the trail name its source.
"""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from worker.routes.names import canonical

LONGEST_PARK_SECONDS = 300.0
_POSSIBLE = re.compile(r"[!#-\[\]-~]+")  # no quote, no backslash: JSON escapes them, and redaction would miss the key


@dataclass(frozen=True)
class Key:
    """One API key. `source`: where it comes from, as in `environment OPENAI_API_KEY#2`. `tenant`: whose account it is, ""
    for ours."""

    secret: str = field(repr=False)
    source: str
    tenant: str = ""

    def __str__(self) -> str:
        return f"{self.source} of tenant {self.tenant}" if self.tenant else self.source


def parsed(text: str, source: str, where: str, *, tenant: str = "") -> tuple[Key, ...]:
    """The keys of a comma-separated list. Raises ConfigurationError, which never shows a key."""
    secrets = list(dict.fromkeys(secret for part in text.split(",") if (secret := part.strip())))
    if not all(_POSSIBLE.fullmatch(secret) for secret in secrets):
        raise ConfigurationError([Problem(where, "", "holds a character that no API key has", "copy the key again")])
    number = [""] if len(secrets) == 1 else [f"#{n}" for n in range(1, len(secrets) + 1)]
    return tuple(Key(secret, f"{source}{n}", tenant) for secret, n in zip(secrets, number, strict=True))


def of_variable(name: str, environment: Environment, *, tenant: str = "") -> tuple[Key, ...]:
    """The keys in an environment variable. Their source says whether it is set in the process environment or in `.env`."""
    layer = "environment"
    if isinstance(environment, ChainMap) and not environment.maps[0].get(name):
        layer = ".env"
    return parsed(environment.get(name, ""), f"{layer} {name}", name, tenant=tenant)


def of_file(path: Path) -> tuple[Key, ...]:
    """The keys in a key file (one per line, or separated by commas), as secret stores mount it; () if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError):
        return ()
    return parsed(",".join(text.split()), f"file {path.name}", str(path))


TenantKeys = Mapping[str, Mapping[str, tuple[Key, ...]]]  # by tenant and provider


class _Parked(NamedTuple):
    """A parked key: until when it is skipped (clock time), the length of its last park in seconds, its name for people."""

    until: float
    lasts: float
    name: str


_FREE = _Parked(0.0, 0.0, "")


class Keys:
    """The keys of one worker. `of_tenants` returns the keys of tenants, by tenant and provider."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, of_tenants: Callable[[], TenantKeys] = dict
    ) -> None:
        self._clock, self.of_tenants = clock, of_tenants
        self._put: dict[str, tuple[Key, ...]] = {}
        self._parked: dict[str, _Parked] = {}  # by secret

    def put(self, provider: str, secrets: str) -> None:
        """Set the keys for `provider` in this process only (a comma-separated list); "" removes them."""
        self._put[provider] = parsed(secrets, f"memory {provider}", f"the keys put in for {provider}")

    def given(self, provider: str, own: Sequence[Key], tenant: str) -> Sequence[Key]:
        """All keys of the first source that has any, best first. `own`: the keys that the route was configured with."""
        by_tenant = self.of_tenants()
        theirs = by_tenant.get(tenant) or by_tenant.get("default")
        return (theirs and theirs.get(canonical(provider))) or self._put.get(provider) or own

    def best(self, keys: Sequence[Key]) -> Key | None:
        """The first key that is not parked. If all are parked: the first one of ours, because the cooldown of our account
        already limits when it is called; None if all are a tenant's."""
        good = next((key for key in keys if not self._is_parked(key)), None)
        return good or next((key for key in keys if not key.tenant), None)

    def any_left(self, keys: Sequence[Key]) -> bool:
        """Whether any key is not parked."""
        return any(not self._is_parked(key) for key in keys)

    def opens_in(self, keys: Sequence[Key]) -> float:
        """Seconds until one of the keys is no longer parked; 0 if one is not parked now."""
        if not self._parked:
            return 0.0
        return max(0.0, min(self._parked.get(key.secret, _FREE).until for key in keys) - self._clock())

    def park(self, key: Key, seconds: float) -> None:
        """The key was refused: skip it for `seconds`; twice as long each time that it is refused again."""
        if self._is_parked(key):
            return  # a call that was already running when the key was parked
        before = self._parked.get(key.secret, _FREE).lasts
        lasts = min(max(seconds, 2 * before), max(seconds, LONGEST_PARK_SECONDS))
        self._parked[key.secret] = _Parked(self._clock() + lasts, lasts, str(key))

    def hold(self, key: Key, seconds: float) -> None:
        """Skip the key for `seconds`, because its account has a cooldown. Does not count as a refusal."""
        before = self._parked.get(key.secret, _FREE)
        self._parked[key.secret] = _Parked(max(before.until, self._clock() + seconds), before.lasts, str(key))

    def told(self, own: Iterable[Key]) -> list[str]:
        """The keys in use that are parked now, named by their sources; one that was replaced is not in use. `own`: the keys
        that the routes were configured with."""
        if not self._parked:
            return []
        of_tenants = (keys for by_provider in self.of_tenants().values() for keys in by_provider.values())
        used = {key.secret for key in chain(own, *of_tenants, *self._put.values())}
        now = self._clock()
        return sorted(p.name for secret, p in self._parked.items() if p.until > now and secret in used)

    def forgive(self) -> None:
        """Use all keys again: an operator may have fixed what they were refused for."""
        self._parked.clear()

    def accepted(self, key: Key) -> None:
        """The provider accepted the key: forget its refusals."""
        if self._parked:
            self._parked.pop(key.secret, None)

    def _is_parked(self, key: Key) -> bool:
        return bool(self._parked) and self._parked.get(key.secret, _FREE).until > self._clock()
