"""The keys of provider accounts: where each comes from, and which one a call is made with.

The first source that has keys decides: the request's own (its tenant's, policies/tenants.yaml), those put into this process,
the file that routes.json names, the environment, `.env`. A call takes the first of them that was not refused lately; nobody
but the provider ever sees one, and the trail names its source only.
"""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from worker.routes.names import canonical

LONGEST_PARK_SECONDS = 300.0
_POSSIBLE = re.compile(r"[!#-\[\]-~]+")  # no quote and no backslash: JSON would write them otherwise


@dataclass(frozen=True)
class Key:
    """`source`: where it came from, as in `environment OPENAI_API_KEY#2`. `tenant`: whose account it is, if not ours."""

    secret: str = field(repr=False)
    source: str
    tenant: str = ""

    def __str__(self) -> str:
        return f"{self.source} of tenant {self.tenant}" if self.tenant else self.source


def parsed(text: str, source: str, where: str, *, tenant: str = "") -> tuple[Key, ...]:
    """The keys of a comma-separated list. Raises ConfigurationError without repeating one."""
    secrets = list(dict.fromkeys(secret for part in text.split(",") if (secret := part.strip())))
    if not all(_POSSIBLE.fullmatch(secret) for secret in secrets):
        raise ConfigurationError([Problem(where, "", "holds a character that no API key has", "copy the key anew")])
    number = [""] if len(secrets) == 1 else [f"#{n}" for n in range(1, len(secrets) + 1)]
    return tuple(Key(secret, f"{source}{n}", tenant) for secret, n in zip(secrets, number, strict=True))


def of_variable(name: str, environment: Environment, *, tenant: str = "") -> tuple[Key, ...]:
    """Those of an environment variable; its source tells whether it stands in the process environment or in `.env`."""
    layer = "environment"
    if isinstance(environment, ChainMap) and not environment.maps[0].get(name):
        layer = ".env"
    return parsed(environment.get(name, ""), f"{layer} {name}", name, tenant=tenant)


def of_file(path: Path) -> tuple[Key, ...]:
    """Those of a key file (one a line, or with commas), as secret stores mount them; none if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError):
        return ()
    return parsed(",".join(text.split()), f"file {path.name}", str(path))


TenantKeys = Mapping[str, Mapping[str, tuple[Key, ...]]]  # by tenant and provider


class _Parked(NamedTuple):
    """A key that is passed over: until when, for how long it was refused, its name for people."""

    until: float
    lasts: float
    name: str


_FREE = _Parked(0.0, 0.0, "")


class Keys:
    """The keys that this worker calls with. `of_tenants` gives those of tenants, by tenant and provider."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, of_tenants: Callable[[], TenantKeys] = dict
    ) -> None:
        self._clock, self.of_tenants = clock, of_tenants
        self._put: dict[str, tuple[Key, ...]] = {}
        self._parked: dict[str, _Parked] = {}  # by secret

    def put(self, provider: str, secrets: str) -> None:
        """Keys of this process alone, for `provider`, until it ends; "" takes them away. A comma-separated list."""
        self._put[provider] = parsed(secrets, f"memory {provider}", f"the keys put in for {provider}")

    def given(self, provider: str, own: Sequence[Key], tenant: str) -> Sequence[Key]:
        """All keys of the first source that has any, the best first. `own`: those that the route was configured with."""
        by_tenant = self.of_tenants()
        theirs = by_tenant.get(tenant) or by_tenant.get("default")
        return (theirs and theirs.get(canonical(provider))) or self._put.get(provider) or own

    def best(self, keys: Sequence[Key]) -> Key | None:
        """The first that is not parked; where all are, the first of them if it is ours: its account's rest says when."""
        good = next((key for key in keys if not self._is_parked(key)), None)
        return good or next((key for key in keys if not key.tenant), None)

    def any_left(self, keys: Sequence[Key]) -> bool:
        """Whether one is not parked."""
        return any(not self._is_parked(key) for key in keys)

    def opens_in(self, keys: Sequence[Key]) -> float:
        """Seconds until one of them is no longer parked; 0 when one is not now."""
        if not self._parked:
            return 0.0
        return max(0.0, min(self._parked.get(key.secret, _FREE).until for key in keys) - self._clock())

    def park(self, key: Key, seconds: float) -> None:
        """It was refused: pass it over for `seconds`, and twice as long each time that it is refused after that."""
        if self._is_parked(key):
            return  # a call that was under way when it was parked
        before = self._parked.get(key.secret, _FREE).lasts
        lasts = min(max(seconds, 2 * before), max(seconds, LONGEST_PARK_SECONDS))
        self._parked[key.secret] = _Parked(self._clock() + lasts, lasts, str(key))

    def hold(self, key: Key, seconds: float) -> None:
        """Its account is to be left alone for `seconds`."""
        before = self._parked.get(key.secret, _FREE)
        self._parked[key.secret] = _Parked(max(before.until, self._clock() + seconds), before.lasts, str(key))

    def told(self) -> list[str]:
        """The keys that are passed over now, by their sources."""
        now = self._clock()
        return sorted(parked.name for parked in self._parked.values() if parked.until > now)

    def forgive(self) -> None:
        """An operator changed something: what was refused may be tried again."""
        self._parked.clear()

    def accepted(self, key: Key) -> None:
        """It was taken."""
        if self._parked:
            self._parked.pop(key.secret, None)

    def _is_parked(self, key: Key) -> bool:
        return bool(self._parked) and self._parked.get(key.secret, _FREE).until > self._clock()
