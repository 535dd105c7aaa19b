"""policies/oncall.yaml: who is on call when, and what is wrong in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.errors import ConfigurationError
from worker.notify.oncall import OnCall, load_on_call

KIRA = {"name": "Kira", "contact": "@kira", "timezone": "Asia/Bangkok", "days": ["mon", "fri"], "hours": "08:00-20:00"}
SANTI = {"name": "Santi", "timezone": "Europe/Lisbon", "hours": "22:00-06:00", "days": ["mon"]}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "who"),
    [
        ("2026-11-23T02:00", "Kira (@kira)"),  # Monday 09:00 in Bangkok
        ("2026-11-23T13:00", ""),  # Monday 20:00 there
        ("2026-11-23T22:30", "Santi"),  # Monday 22:30 in Lisbon
        ("2026-11-24T05:59", "Santi"),  # Tuesday morning of Monday's night
        ("2026-11-24T06:00", ""),
        ("2026-11-23T05:00", "Kira (@kira)"),
        ("2026-11-24T22:30", ""),
    ],
)
def test_who_is_on_call_goes_by_their_own_clock(at: str, who: str) -> None:
    on_call = OnCall.model_validate({"on_call": [KIRA, SANTI]})
    assert on_call.now(ms(at)) == who


def test_who_writes_to_clients() -> None:
    on_call = OnCall.model_validate({"on_call": [{"name": "Kira"}], "tells_clients": {"acme": "Dana"}})
    assert (on_call.writes_to("acme", 0), on_call.writes_to("globex", 0)) == ("Dana", "Kira")
    assert OnCall().writes_to("acme", 0) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on_call: [{name: K, timezone: Mars/Olympus}]", "is not a time zone"),
        ("on_call: [{name: K, hours: 8-20}]", "on_call.0.hours"),
        ("late_minutes: -1", "late_minutes"),
        ("lateminutes: 1", "is not a field here"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "oncall.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_on_call({"POLICIES_DIR": str(tmp_path)})


def test_without_a_file_the_one_that_comes_along_counts(tmp_path: Path) -> None:
    assert load_on_call({"POLICIES_DIR": str(tmp_path)}) == OnCall()
