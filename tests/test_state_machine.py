"""The transitions on a real server against a small model in Python: any order of steps leaves each job in one place."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from producer import IdempotencyConflict, Producer, keyspace
from producer.connection import connect
from producer.errors import JobEnded
from producer.job import DeadReason
from producer.policy import load_policies
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.replies import texts
from tests.support.transitions import Q, claim, done, expire_leases, send, settle, where
from worker.queue import dead_letters, transitions
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Outcome, Park, Released, Retry
from worker.queue.transitions import Settled
from worker.queue.waiting import Waiting


@dataclass
class Model:
    """What the system should know of one job."""

    place: str = "queue"
    holder: str | None = None  # execution id
    crashes: int = 0
    suspect: int = 0
    charged: int = 0
    begun: bool | None = None  # alone, or together with others
    generation: int = 0
    executions: int = 0
    results: int = 0


POLICIES = load_policies({})


class Transitions(RuleBasedStateMachine):
    server = ""
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.client: redis.Redis = connect(self.server)
        self.client.flushall()
        self.producer = Producer(self.client, POLICIES)
        self.jobs: dict[str, Model] = {}
        self.tokens = count()
        self.paused = False

    def teardown(self) -> None:
        self.client.close()

    @rule(key=st.none() | st.sampled_from(["a", "b"]), body=st.sampled_from(["x", "y"]))
    def submit(self, key: str | None, body: str) -> None:
        before = set(self.jobs)
        try:
            job_id = self.producer.enqueue(chat(body, idempotency_key=key), job_id=f"job{next(self.tokens)}")
        except IdempotencyConflict as conflict:
            assert conflict.job_id in before
            return
        if key is None:
            assert job_id not in before
        self.jobs.setdefault(job_id, Model())

    @rule(target=claims, at_most=st.integers(1, 4), resends=st.integers(0, 1))
    def claim(self, at_most: int, resends: int) -> object:
        token = f"t{next(self.tokens)}"
        taken = claim(self.client, at_most, token)
        for _ in range(resends):
            assert [held.lease for held in claim(self.client, at_most, token)] == [held.lease for held in taken]
        waiting = [job_id for job_id, model in self.jobs.items() if model.place == "queue"]
        assert len(taken) == (0 if self.paused else min(at_most, len(waiting)))
        for held in taken:
            model = self.jobs[held.job_id]
            assert (model.place, model.crashes, model.executions) == ("queue", held.crashes, held.executions)
            model.place, model.holder, model.begun = "leased", held.execution_id, None
            assert held.suspect == model.suspect
        return multiple(*taken)

    @rule(held=claims, alone=st.booleans())
    def begin(self, held: Claim, alone: bool) -> None:
        send(self.client, transitions.begin(held, alone=alone))
        if self.jobs[held.job_id].holder == held.execution_id:
            self.jobs[held.job_id].begun = alone

    @rule(held=claims, kind=st.sampled_from(["done", "retry", "park", "dead", "release"]), resends=st.integers(0, 1))
    def end(self, held: Claim, kind: str, resends: int) -> None:
        outcomes: dict[str, tuple[Outcome, str]] = {
            "done": (done(held.job_id), "finished"),
            "retry": (Retry(60, "why", []), "scheduled"),
            "park": (Park(60, Waiting(WaitReason.ROUTE), []), "scheduled"),
            "dead": (Dead(DeadReason.EXHAUSTED, "down", [], 1000), "failed"),
            "release": (Released([]), "queue"),
        }
        outcome, place = outcomes[kind]
        model = self.jobs[held.job_id]
        holds = model.holder == held.execution_id
        said = settle(self.client, held, outcome)
        assert (said is Settled.COMMITTED) == holds
        if holds:
            model.place, model.holder = place, None
            model.results += kind == "done"
            model.executions += kind == "retry"
            if kind != "release":
                model.suspect = model.charged = 0
        for _ in range(resends):
            assert settle(self.client, held, outcome) is not Settled.COMMITTED

    @rule()
    def workers_vanish(self) -> None:
        expire_leases(self.client)
        send(self.client, transitions.reap(Q, 2**53))
        for model in self.jobs.values():
            if model.place == "leased":
                ran = model.suspect == 0 or model.begun is not None
                model.crashes += ran
                model.suspect += ran
                model.charged += model.begun is True
                model.holder = None
                model.place = "failed" if model.charged >= 3 else "queue"

    @rule()
    def time_passes(self) -> None:
        for job_id in texts(self.client.zrange(keyspace.scheduled(Q), 0, -1)):
            self.client.zadd(keyspace.scheduled(Q), {job_id: 1})
        send(self.client, transitions.promote(Q))
        for model in self.jobs.values():
            if model.place == "scheduled":
                model.place = "queue"

    @rule(data=st.data())
    def operate(self, data: st.DataObject) -> None:
        """An operator cancels, discards, requeues or resolves some job."""
        if not self.jobs:
            return
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        model = self.jobs[job_id]
        match data.draw(st.sampled_from(["cancel", "discard", "requeue", "resolve"])):
            case "cancel":
                with contextlib.suppress(JobEnded):
                    self.producer.cancel(job_id, who="me")
                    model.place, model.holder = "cancelled", None
            case "discard":
                dead_letters.discard(self.client, Q, [job_id], who="me")
                if model.place == "failed":
                    model.place = "cancelled"
            case "requeue":
                report = dead_letters.requeue(self.client, Q, iter([[job_id]]), who="me")
                allowed = model.place == "failed" and model.generation < 3
                assert report.requeued == allowed
                if allowed:
                    model.place, model.crashes, model.executions = "queue", 0, 0
                    model.suspect = model.charged = 0
                    model.generation += 1
            case "resolve":
                if model.place in ("finished", "cancelled"):
                    return
                dead_letters.resolve(self.client, job_id, "by hand", who="me", keep_seconds=1000)
                model.place, model.holder = "finished", None
                model.results += 1

    @rule(flag=st.sampled_from(["0", "1"]))
    def pause(self, flag: str) -> None:
        self.client.set(keyspace.PAUSE, flag)
        self.paused = flag == "1"

    @rule()
    def audit(self) -> None:
        assert send(self.client, transitions.audit(Q, [*self.jobs] or ["none"]))[0] == []

    @invariant()
    def each_job_is_in_its_one_place(self) -> None:
        for job_id, model in self.jobs.items():
            assert where(self.client, job_id) == ([] if model.place == "cancelled" else [model.place])
            assert model.results <= 1
            has_result = self.producer.fetch(job_id).completion is not None
            assert has_result == (model.results == 1)
        live = {job_id for job_id, model in self.jobs.items() if model.place in ("queue", "leased", "scheduled")}
        assert set(texts(self.client.zrange(keyspace.accepted(Q), 0, -1))) == live
        assert set(texts(self.client.zrange(keyspace.promised(Q), 0, -1))) == live
        dead = {job_id for job_id, model in self.jobs.items() if model.place == "failed"}
        assert set(texts(self.client.zrange(keyspace.dead(Q), 0, -1))) == dead


@pytest.mark.timeout(3600)
def test_any_order_of_steps(url: str) -> None:
    Transitions.server = url
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    examples = int(os.environ.get("EXPLORE", 0))  # `make explore`: other orders each time, and more of them
    steps = settings(
        max_examples=examples or 30,
        stateful_step_count=25,
        deadline=None,
        derandomize=not examples,
        suppress_health_check=checks,
        database=None,
    )
    run_state_machine_as_test(Transitions, settings=steps)
