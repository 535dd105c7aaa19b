"""What may be spent, as tables: which cap a scope has, what a month's standing makes of a call, what Redis may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from producer.errors import ConfigurationError
from worker.money.billing_alerts import Guardrail
from worker.money.budget_state import NOTHING, BudgetState, CapStatus, Standing, _standing, steps_of
from worker.money.caps import UNCAPPED, Budgets, Cap, Ceiling, FeatureCap, Owner, load_budgets, micros_of

OWNER = Owner("j", "acme", "u1", "notes", "q", "j:e")


def state(standing: Standing = NOTHING, **budgets: Any) -> BudgetState:
    return BudgetState(Budgets.model_validate(budgets), standing)


def status(scope: str, step: float = 95.0, *, full: bool = False, **fields: int) -> CapStatus:
    return CapStatus(scope, step, full, **{"basis": 10, "hard": 10, "tokens": -1, "spent": 9, **fields})


def standing(*statuses: CapStatus, reduced: str = "") -> Standing:
    return Standing({}, {each.scope: each for each in statuses}, reduced)


@pytest.mark.parametrize(
    ("usd", "micros"),
    [(None, -1), (0, 0), (60, 60_000_000), (0.000_001, 1), (0.000_001_9, 1), (0.1 + 0.2, 300_000), (1e9, 10**15)],
)
def test_dollars_are_whole_micro_dollars_and_never_more_than_the_amount(usd: float | None, micros: int) -> None:
    assert micros_of(usd) == micros


@pytest.mark.parametrize(
    ("fields", "terms", "sets", "holds"),
    [
        ({}, (-1, -1, -1), False, False),
        ({"hard_usd": 2}, (2_000_000, 2_000_000, -1), True, True),
        ({"soft_usd": 1}, (-1, 1_000_000, -1), True, False),  # it tells, and refuses nothing
        ({"hard_usd": 2, "soft_usd": 1}, (2_000_000, 1_000_000, -1), True, True),
        ({"tokens": 5}, (-1, -1, 5), True, True),
        ({"hard_usd": 0}, (0, 0, -1), True, True),
    ],
)
def test_a_caps_terms(fields: dict[str, Any], terms: tuple[int, int, int], sets: bool, holds: bool) -> None:
    cap = Cap.model_validate(fields)
    assert (cap.terms, cap.sets, cap.holds) == (terms, sets, holds)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"total": {"hard_usd": 1, "soft_usd": 2}}, "would never be reached"),
        ({"total": {"hard_usd": True}}, "must be US dollars as a number"),
        ({"total": {"hard_usd": "60"}}, "must be US dollars as a number"),
        ({"total": {"hard_usd": -1}}, "greater than or equal to 0"),
        ({"total": {"tokens": 0}}, "greater than or equal to 1"),
        ({"total": {"hard": 1}}, "Extra inputs"),
        ({"alert_thresholds": []}, "climb"),
        ({"alert_thresholds": [80, 80]}, "climb"),
        ({"alert_thresholds": [101]}, "less than or equal to 100"),
        ({"users": {"u1": {}}}, "a user of which tenant"),
        ({"providers": {"google": {}, "gemini": {}}}, "stands twice"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Budgets.model_validate(fields)


FILE: dict[str, Any] = {
    "total": {"hard_usd": 100},
    "providers": {"google": {"hard_usd": 5}},
    "tenants": {"default": {"hard_usd": 1}, "acme": {"hard_usd": 2}},
    "users": {"default": {"tokens": 7}},
}


@pytest.mark.parametrize(
    ("scope", "terms"),
    [
        ("total", (100_000_000, 100_000_000, -1)),
        ("tenant:acme", (2_000_000, 2_000_000, -1)),
        ("tenant:other", (1_000_000, 1_000_000, -1)),
        ("user:acme/u1", (-1, -1, 7)),
        ("provider:google", (5_000_000, 5_000_000, -1)),
        ("provider:openai", (-1, -1, -1)),
        ("feature:notes", (-1, -1, -1)),
    ],
)
def test_a_scope_has_its_own_cap_or_its_sections_default(scope: str, terms: tuple[int, int, int]) -> None:
    assert state(**FILE).cap(scope).terms == terms


def test_an_operators_cap_goes_before_the_files() -> None:
    raised = Standing({"tenant:acme": Cap(hard_usd=9)}, {})
    assert state(raised, **FILE).cap("tenant:acme") == Cap(hard_usd=9)
    assert state(raised, **FILE).cap("tenant:other") == Cap(hard_usd=1)


def test_the_file_names_its_caps() -> None:
    budgets = Budgets.model_validate({**FILE, "features": {"notes": {"max_cost_usd": 1}}})
    assert list(budgets.named) == ["total", "provider:google", "tenant:default", "tenant:acme", "user:default"]


@pytest.mark.parametrize(
    ("features", "cap"),
    [
        ({}, FeatureCap()),
        ({"default": {"max_input_tokens": 1}}, FeatureCap(max_input_tokens=1)),
        ({"default": {"max_input_tokens": 1}, "notes": {}}, FeatureCap()),
    ],
)
def test_a_features_cap_on_one_job(features: dict[str, Any], cap: FeatureCap) -> None:
    assert Budgets.model_validate({"features": features}).feature("notes") == cap


@pytest.mark.parametrize(
    ("owner", "scopes"),
    [
        (OWNER, ("tenant:acme", "user:acme/u1", "feature:notes")),
        (Owner("j", "a/b", "u/1", "", "q", "l"), ("tenant:a/b", "user:a%2Fb/u/1")),
        (Owner("j", "acme", "", "", "q", "l"), ("tenant:acme",)),
    ],
)
def test_whose_a_call_is(owner: Owner, scopes: tuple[str, ...]) -> None:
    assert owner.scopes == scopes


def test_the_terms_of_a_call_are_of_every_scope_that_has_a_cap() -> None:
    assert list(state(**FILE).terms(OWNER, "gemini")) == ["total", "provider:google", "tenant:acme", "user:acme/u1"]
    assert list(state(**FILE).terms(OWNER, None)) == ["tenant:acme", "user:acme/u1"]  # by its tenant's own key


@pytest.mark.parametrize(
    ("budgets", "ceiling"),
    [
        ({}, UNCAPPED),
        ({"total": {"soft_usd": 1}}, UNCAPPED),
        (FILE, Ceiling(2_000_000, "tenant:acme", 7)),
        ({"users": {"default": {"tokens": 7}}, "total": {"tokens": 3}}, Ceiling(None, "", 3)),
        ({"total": {"hard_usd": 1}, "tenants": {"acme": {"hard_usd": 1}}}, Ceiling(1_000_000, "tenant:acme")),
    ],
)
def test_the_lowest_cap_is_the_ceiling(budgets: dict[str, Any], ceiling: Ceiling) -> None:
    assert state(**budgets).ceiling(OWNER, "google") == ceiling


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (standing(), ""),
        (standing(reduced="cost is reduced by sam"), "cost is reduced by sam"),
        (standing(status("total", 85.0)), ""),
        (standing(status("total")), "total has used at least 95% of its $0.000010 for this month"),
        (standing(status("feature:notes", 100.0)), "feature:notes has used at least 100%"),
        (standing(status("provider:google")), ""),  # others serve
        (standing(status("tenant:globex")), ""),
        (standing(status("total"), reduced="cost is reduced by sam"), "cost is reduced by sam"),
    ],
)
def test_cost_saving_begins_at_the_last_threshold(found: Standing, why: str) -> None:
    said = state(found).cost_saving(OWNER)
    assert said.startswith(why) and bool(said) == bool(why)
    assert state(found, cost_saving={"critical_features": ["notes"]}).cost_saving(OWNER) == ""


def test_providers_at_their_last_threshold_are_avoided_by_any_name() -> None:
    found = standing(status("provider:google"), status("provider:openai", 85.0))
    assert state(found).avoided(["gemini", "openai", "mistral"]) == {"gemini"}


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (
            status("tenant:acme", full=True),
            "tenant:acme has too little left of its cap of $0.000010 for this month; its jobs wait",
        ),
        (
            status("provider:google", full=True, hard=-1, tokens=5000),
            "provider:google has too little left of its 5,000 tokens of this month; other providers serve its jobs",
        ),
        (status("tenant:acme"), ""),
        (status("tenant:globex", full=True), ""),
    ],
)
def test_which_cap_is_full(each: CapStatus, said: str) -> None:
    assert state(standing(each)).full(OWNER, "gemini") == said


@pytest.mark.parametrize(("at", "steps"), [(90.0, (60, 85, 90, 95)), (85.0, (60, 85, 95))])
def test_the_ledger_tells_at_each_threshold_and_at_the_guardrail(at: float, steps: tuple[float, ...]) -> None:
    assert steps_of(Budgets(), Guardrail(at_percent=at)) == steps


GOOD = {"step": 95, "full": True, "basis": 1, "hard": 2, "tokens": -1, "spent": 1}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", b"\xff", json.dumps({**GOOD, "hard": "x"}).encode(), b'{"step": NaN']
)
def test_what_cannot_be_read_in_redis_is_passed_over(raw: bytes) -> None:
    found = _standing([{b"tenant:acme": raw}, {b"total": json.dumps(GOOD).encode(), b"tenant:acme": raw}, None])
    assert found.cap_statuses == {"total": CapStatus("total", 95.0, True, 1, 2, -1, 1)}
    assert not any(cap.sets for cap in found.caps.values())


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, ""),
        (b'{"who": "sam", "why": "June"}', "cost is reduced by sam: June"),
        (b'{"who": "sam"}', "cost is reduced by sam"),
        (b"1", "cost is reduced by somebody"),
        (b"\xff", "cost is reduced by somebody"),
    ],
)
def test_who_reduced_cost(raw: bytes | None, said: str) -> None:
    assert _standing([{}, {}, raw]).reduced == said


@pytest.mark.parametrize(
    ("text", "hard_usd"),
    [
        ("version: 1\n", None),
        ("version: 1\ntenants:\n", None),
        ("version: 1\ntenants: {default: {hard_usd: 1}, acme: {soft_usd: 0.5}}\n", 1.0),  # over the default
        ("version: 1\nladder: [50]\nsafeguard: {output_tokens: 9}\n", None),  # the old names
    ],
)
def test_the_file_is_read(tmp_path: Path, text: str, hard_usd: float | None) -> None:
    (tmp_path / "budgets.yaml").write_text(text)
    found = load_budgets({"POLICIES_DIR": str(tmp_path)})
    assert found.cap_of("tenant:acme").hard_usd == hard_usd
    assert (found.alert_thresholds == (50.0,)) == ("ladder" in text) == (found.cost_saving.output_tokens == 9)


def test_an_emptied_file_lifts_no_cap(tmp_path: Path) -> None:
    (tmp_path / "budgets.yaml").write_text("")
    with pytest.raises(ConfigurationError):
        load_budgets({"POLICIES_DIR": str(tmp_path)})
