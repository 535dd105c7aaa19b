"""An outage of the past in simulated time: what is lost, late and saved with a map, with one vendor, and without a queue."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ops.drills.replay.data import Arrival, Incident, load_incident, load_trace
from ops.drills.replay.run import Replay, lines, replayed
from producer.errors import UsageError
from producer.policy import JobPolicy, Policies
from worker.configuration import Configuration
from worker.routes.route import read_routes

OUTAGE = Incident.model_validate(
    {
        "what": "all fails",
        "windows": [{"provider": "a", "begins": "14:00", "ends": "14:30", "failures": 1, "timeouts": 0.2}],
    }
)
EVERY_TEN_SECONDS = [Arrival(float(at), 100, 50) for at in range(0, 3600, 10)]
IN_THE_OUTAGE = 180


def configuration(folder: Path, *providers: str, **policy: object) -> Configuration:
    price = {"input": 3, "output": 15}
    base = {"model": "m", "apiKeyEnv": "", "baseUrl": "http://localhost/v1", "price": price, "timeoutSeconds": 20}
    path = folder / f"{'-'.join(providers)}.json"
    path.write_text(json.dumps({"hot": [{"provider": each, **base} for each in providers]}))
    return Configuration(Policies(job_types={"default": JobPolicy.model_validate(policy)}), read_routes(path, {}))


def replay(folder: Path, *providers: str, seed: int = 1, incident: Incident = OUTAGE, **policy: object) -> Replay:
    maps = [("map", configuration(folder, *providers, **policy))]
    return replayed(
        EVERY_TEN_SECONDS, "x", incident, maps, job_type="default", slots=50, seed=seed, rate=1.0
    )  # fmt: skip


def test_with_a_second_provider_nothing_is_lost_and_the_outage_is_saved(tmp_path: Path) -> None:
    found, alone, direct = replay(tmp_path, "a", "b").columns
    assert (found.jobs, found.done, found.lost) == (631, 631, 0)
    assert IN_THE_OUTAGE <= found.saved <= IN_THE_OUTAGE + 13  # and until a probe after it has closed the breaker
    assert found.usd == pytest.approx(631 * (100 * 3 + 50 * 15) / 1e6)
    assert (alone.lost, alone.saved) == (0, 0)
    assert alone.parked > 0
    assert IN_THE_OUTAGE - 3 <= direct.lost <= IN_THE_OUTAGE  # the last ones are tried again after it


def test_what_waits_for_one_vendor_is_late_by_the_outage(tmp_path: Path) -> None:
    found = replay(tmp_path, "a", max_time_to_answer_seconds=600).columns[0]
    assert found.lost == 0
    assert 100 < found.late < IN_THE_OUTAGE
    assert 1700 < found.longest < 1900


def test_what_expires_is_dead(tmp_path: Path) -> None:
    found = replay(tmp_path, "a", expires_after_seconds=300).columns[0]
    assert found.dead.keys() == {"expired"}
    assert 100 < found.lost < IN_THE_OUTAGE


def test_a_partial_outage_is_mostly_answered_by_retries(tmp_path: Path) -> None:
    window = OUTAGE.windows[0].model_copy(update={"failures": 0.3, "timeouts": 0.0})
    found = replay(tmp_path, "a", "b", incident=OUTAGE.model_copy(update={"windows": (window,)})).columns
    assert found[0].lost == 0
    assert found[0].attempts > found[0].jobs
    assert 0 < found[2].lost < 30


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    first, second, other = (replay(tmp_path, "a", "b", seed=seed).as_dict() for seed in (1, 1, 2))
    assert first == second
    assert first != {**other, "seed": 1}


def test_two_configurations_stand_side_by_side(tmp_path: Path) -> None:
    maps = [("two", configuration(tmp_path, "a", "b")), ("one", configuration(tmp_path, "a"))]
    found = replayed(EVERY_TEN_SECONDS, "x", OUTAGE, maps, job_type="default", slots=50, seed=1, rate=2.0)
    assert [each.name for each in found.columns] == ["two", "one", "a alone", "a, no queue"]
    assert found.trace_jobs > 1200
    assert found.columns[1].p95 == found.columns[2].p95
    assert len({len(row) for row in lines(found)}) == 1


def test_a_trace_is_read_as_people_have_it(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\n\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    first, second = load_trace(path)
    assert (first.at, first.prompt_tokens, first.answer_tokens) == (0.0, 4808, 10)
    assert second.at == pytest.approx(0.052)
    other = tmp_path / "other.csv"
    other.write_text("time,prompt_tokens,completion_tokens\n0,1,2\n5.5,3,4\n")
    assert load_trace(other)[1] == Arrival(5.5, 3, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 has no columns"),
        ("a,b\n1,2\n", "line 1 has no columns"),
        ("time,input_tokens,output_tokens\n1,2,3\nx,y,z\n", "line 3 is not a time and two numbers"),
        ("time,input_tokens,output_tokens\n1,2\n", "line 2 is not a time"),
        ("time,input_tokens,output_tokens\n1,2,3\n", "no two requests"),
    ],
)
def test_a_trace_that_cannot_be_used_is_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        load_trace(path)


@pytest.mark.parametrize("day", ["2024-11-25", "2026-03-04", "2026-04-06", "2026-04-07"])
def test_the_outages_of_the_past_are_there(day: str) -> None:
    assert load_incident(day).windows[0].seconds[0] < load_incident(day).windows[0].seconds[1]


def test_another_day_is_told() -> None:
    with pytest.raises(UsageError, match="known incidents: 2024-11-25"):
        load_incident("2020-01-01")
