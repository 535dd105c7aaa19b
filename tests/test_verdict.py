"""What follows from one call, as a table: the breaker, the cooldown and whose it is, the key, whether it burns the job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.errors.catalog import Action, Breaker, Failure, Scope
from worker.routing.attempt import Correction
from worker.routing.verdict import Facts, KeyStep, Verdict, verdict_on

FACTS = Facts(probe=False, seconds=60, fair_seconds=60)
KEY = replace(FACTS, has_key=True)
LAST_KEY = KEY
TWO_KEYS = replace(KEY, other_key=True)
TENANTS_KEY = replace(KEY, tenants_key=True)
OLD_KEY = replace(KEY, key_is_current=False)
PROBE = replace(FACTS, probe=True)

BROKEN = Failure("server_error", Action.RETRY)
NEUTRAL = Failure("content", Action.ELSEWHERE, Breaker.NEUTRAL)
NAMED_TIME = Failure("rate_limited", Action.FAILOVER, Breaker.NEUTRAL, retry_after=7.0)
BOTH_TIMES = replace(NAMED_TIME, cooldown=60.0)
UNPAID = Failure("billing", Action.FAILOVER, Breaker.NEUTRAL, cooldown=300.0, scope=Scope.ACCOUNT)
BAD_KEY = Failure("unauthorized", Action.NEXT_KEY, Breaker.NEUTRAL, cooldown=60.0, scope=Scope.ACCOUNT)
UNKNOWN = Failure("unknown_parameter", Action.DROP, Breaker.NEUTRAL, parameter="n", instead="count", detail="no n")
CORRECTION = Correction({}, "n", "dropped n", frozenset({"n"}))


def of(failure: Failure, **fields: object) -> Verdict:
    """A verdict that changes nothing but what `fields` say."""
    return replace(Verdict(failure, None), **fields)  # type: ignore[arg-type]  # a table's fields are of many types


VERDICTS = {
    "an answer is a success": (None, FACTS, Verdict(None, True)),
    "an answer with a key accepts the key": (None, KEY, Verdict(None, True, key=KeyStep.ACCEPTED)),
    "a probe's answer is a success": (None, PROBE, Verdict(None, True)),
    "a failure of the route counts and burns": (BROKEN, FACTS, of(BROKEN, breaker=False, burned=True)),
    "a probe's failure counts and burns nothing": (BROKEN, PROBE, of(BROKEN, breaker=False)),
    "a neutral failure burns, and says nothing of the route": (NEUTRAL, FACTS, of(NEUTRAL, burned=True)),
    "a time that was named is a cooldown, and burns nothing": (NAMED_TIME, FACTS, of(NAMED_TIME, cooldown=7.0)),
    "a time that was named goes before ours": (BOTH_TIMES, FACTS, of(BOTH_TIMES, cooldown=7.0)),
    "a time of zero is none": (
        replace(BROKEN, retry_after=0.0),
        FACTS,
        of(replace(BROKEN, retry_after=0.0), breaker=False, burned=True),
    ),
    "a route's cooldown leaves its account alone": (
        replace(UNPAID, scope=Scope.ROUTE),
        FACTS,
        of(replace(UNPAID, scope=Scope.ROUTE), cooldown=300.0),
    ),
    "an account's cooldown is of all its routes": (UNPAID, FACTS, of(UNPAID, cooldown=300.0, account=True)),
    "without a time an account does not cool down": (
        replace(UNPAID, cooldown=0.0),
        FACTS,
        of(replace(UNPAID, cooldown=0.0), burned=True),
    ),
    "a refused key is parked, and the next one is used at once": (
        BAD_KEY,
        TWO_KEYS,
        of(replace(BAD_KEY, cooldown=0.0), key=KeyStep.PARK, key_seconds=60.0, again_at_once=True),
    ),
    "the last key is parked, and its account cools down": (
        BAD_KEY,
        LAST_KEY,
        of(BAD_KEY, cooldown=60.0, account=True, key=KeyStep.PARK, key_seconds=60.0),
    ),
    "without a key there is none to park": (BAD_KEY, FACTS, of(BAD_KEY, cooldown=60.0, account=True)),
    "another key is of no use to a route without one": (
        BAD_KEY,
        replace(FACTS, other_key=True),
        of(BAD_KEY, cooldown=60.0, account=True),
    ),
    "a key that was replaced meanwhile is parked, and its account goes on": (
        BAD_KEY,
        OLD_KEY,
        of(BAD_KEY, key=KeyStep.PARK, key_seconds=60.0),
    ),
    "a replaced key does not end the cooldown of another failure": (
        UNPAID,
        OLD_KEY,
        of(UNPAID, cooldown=300.0, account=True),
    ),
    "a tenant's account is held, and the route goes on": (
        UNPAID,
        TENANTS_KEY,
        of(UNPAID, key=KeyStep.HOLD, key_seconds=300.0),
    ),
    "a tenant's account is held for the time that was named": (
        NAMED_TIME,
        TENANTS_KEY,
        of(NAMED_TIME, key=KeyStep.HOLD, key_seconds=7.0),
    ),
    "a tenant's refused key is parked, and the route goes on": (
        BAD_KEY,
        TENANTS_KEY,
        of(BAD_KEY, key=KeyStep.PARK, key_seconds=60.0),
    ),
    "a tenant's failure without a time is a failure of the route": (
        BROKEN,
        TENANTS_KEY,
        of(BROKEN, breaker=False, burned=True),
    ),
    "a parameter that can be dropped is, at once": (
        UNKNOWN,
        replace(FACTS, correction=CORRECTION),
        of(
            replace(UNKNOWN, instead="dropped n", detail="dropped n: no n"),
            again_at_once=True,
            correction=CORRECTION,
        ),
    ),
    "a parameter that cannot be dropped promises nothing instead": (
        UNKNOWN,
        FACTS,
        of(replace(UNKNOWN, instead=""), burned=True),
    ),
    "a correction is of no use to another failure": (
        BROKEN,
        replace(FACTS, correction=CORRECTION),
        of(BROKEN, breaker=False, burned=True),
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_what_follows_from_a_call(name: str) -> None:
    failure, facts, expected = VERDICTS[name]
    assert verdict_on(failure, facts) == expected


@pytest.mark.parametrize(
    ("code", "seconds", "fair_seconds", "breaker"),
    [
        ("timeout", 4.9, 60.0, None),  # our deadline cut it short
        ("timeout", 5.0, 60.0, False),  # long enough to answer in
        ("timeout", 60.0, 60.0, False),
        ("timeout", 1.0, 1.0, False),  # all that the route is ever given
        ("timeout", 0.9, 1.0, None),
        ("stalled", 0.1, 60.0, False),  # no silence from the start
    ],
)
def test_a_silence_that_our_own_deadline_forced_is_not_held_against_the_route(
    code: str, seconds: float, fair_seconds: float, breaker: bool | None
) -> None:
    verdict = verdict_on(Failure(code, Action.FAILOVER), Facts(False, seconds, fair_seconds))
    assert (verdict.breaker, verdict.burned) == (breaker, True)


def test_the_table_reaches_every_step_of_a_key() -> None:
    assert {expected.key for _, _, expected in VERDICTS.values()} == set(KeyStep)
