"""From what came back to what follows: one pure decision on one call, which the router then applies once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from worker.errors.catalog import Action, Breaker, Failure, Scope
from worker.routing.attempt import Correction

FAIR_ATTEMPT_SECONDS = 5.0  # a silence shorter than this, forced by our own deadline, is not held against the route


class KeyStep(Enum):
    """What becomes of the key that the call was made with."""

    NOTHING = auto()
    ACCEPTED = auto()
    PARK = auto()  # it was refused: the account's next key
    HOLD = auto()  # a tenant's account is to be left alone


@dataclass(frozen=True)
class Facts:
    """What a verdict depends on beside the failure.

    `seconds`: that the call was given; `fair_seconds`: that the route is to be given. `tenants_key`: the call was paid by
    its tenant. `other_key`: another key of the account may be used. `key_is_current`: jobs that begin now would use the key
    too.
    """

    probe: bool
    seconds: float
    fair_seconds: float
    has_key: bool = False
    tenants_key: bool = False
    other_key: bool = False
    key_is_current: bool = True
    correction: Correction | None = None


@dataclass(frozen=True)
class Verdict:
    """`failure` None: the answer is good. `breaker`: True a success, False a failure, None neutral. `cooldown`: seconds for
    which nobody should call the route, and with `account` no route of its account. `again_at_once`: the request was
    corrected, or another key is used, and goes out under the same permit. `burned`: it counts against the job's executions."""

    failure: Failure | None
    breaker: bool | None
    cooldown: float = 0.0
    account: bool = False
    key: KeyStep = KeyStep.NOTHING
    key_seconds: float = 0.0
    again_at_once: bool = False
    correction: Correction | None = None
    burned: bool = False


def verdict_on(failure: Failure | None, facts: Facts) -> Verdict:
    """What follows from one call."""
    if failure is None:
        return Verdict(None, True, key=KeyStep.ACCEPTED if facts.has_key else KeyStep.NOTHING)
    if failure.action is Action.NEXT_KEY and facts.has_key and facts.other_key:
        spared = replace(failure, cooldown=0.0)
        return Verdict(spared, None, key=KeyStep.PARK, key_seconds=failure.cooldown, again_at_once=True)
    if failure.action is Action.DROP and facts.correction is not None:
        return Verdict(_corrected(failure, facts.correction), None, again_at_once=True, correction=facts.correction)
    return _failed(failure, facts)


def _corrected(failure: Failure, correction: Correction) -> Failure:
    return replace(failure, instead=correction.done, detail=f"{correction.done}: {failure.detail}")


def _failed(failure: Failure, facts: Facts) -> Verdict:
    cooldown = failure.retry_after or failure.cooldown
    burned = not (cooldown or facts.probe)
    key, key_seconds = KeyStep.NOTHING, 0.0
    if failure.action is Action.NEXT_KEY and facts.has_key:
        key, key_seconds = KeyStep.PARK, failure.cooldown
    if cooldown and facts.tenants_key:  # what a tenant's account is told is no word on the route
        if failure.action is not Action.NEXT_KEY:
            key, key_seconds = KeyStep.HOLD, cooldown
        cooldown = 0.0
    elif failure.action is Action.NEXT_KEY and facts.has_key and not facts.key_is_current:
        cooldown = 0.0  # of a job that began before the key was replaced
    counts = failure.breaker is Breaker.COUNT and not _cut_short(failure, facts)
    if failure.action is Action.DROP:
        failure = replace(failure, instead="")
    return Verdict(
        failure,
        False if counts else None,
        cooldown,
        account=bool(cooldown) and failure.scope is Scope.ACCOUNT,
        key=key,
        key_seconds=key_seconds,
        burned=burned,
    )


def _cut_short(failure: Failure, facts: Facts) -> bool:
    """Whether our own deadline, and not the route, made the call end in silence."""
    return failure.code == "timeout" and facts.seconds < min(FAIR_ATTEMPT_SECONDS, facts.fair_seconds)
