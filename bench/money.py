"""`make bench-money`: caps near their end, a route's rate, fairness between tenants, a day's dollars, a kill.

python -m bench.money [--only caps|rate|fair|day|kill]

Each part is real workers, a real Valkey, a simulated provider over real HTTP. What the ledger says is compared with the
provider's own log, by arithmetic of this file's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import redis

from bench.throughput import BIN, wait_until
from ops.local import embedded
from ops.simulators import provider
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.job import JobResult, JobStatus
from producer.policy import load_policies

PRICES: dict[str, dict[str, float]] = {
    "a": {"input": 3, "output": 15, "cachedInput": 0.3},
    "b": {"input": 0.15, "output": 0.6, "cachedInput": 0.075},
    "c": {"input": 0.8, "output": 4, "cachedInput": 0.08, "cacheWrite": 1},
}
MONTH = time.strftime("%Y-%m", time.gmtime())


@dataclass
class Place:
    """A server, a provider and a folder with configuration."""

    url: str
    client: redis.Redis
    providers: Control
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def producer(self) -> Producer:
        return Producer(self.client, load_policies({"POLICIES_DIR": str(self.folder / "policies")}))

    def routes(self, **tiers: list[dict[str, Any]]) -> None:
        def entry(upstream: str, **fields: Any) -> dict[str, Any]:
            base = {"provider": upstream, "model": f"{upstream}-1", "apiKeyEnv": "", "price": PRICES[upstream]}
            return {**base, "baseUrl": self.providers.base_url(upstream), **fields}

        told = {tier: [entry(**each) for each in entries] for tier, entries in tiers.items()}
        (self.folder / "routes.json").write_text(json.dumps(told))

    def policies(self, **files: dict[str, Any]) -> None:
        (self.folder / "policies").mkdir(exist_ok=True)
        usual = {"jobs": {"job_types": {"default": {"max_time_to_answer_seconds": 86400}}}}
        for name, data in {**usual, **files}.items():
            (self.folder / "policies" / f"{name}.yaml").write_text(json.dumps({"version": 1, **data}))

    def workers(self, count: int, concurrency: int) -> None:
        paths = {"ROUTES_FILE": str(self.folder / "routes.json"), "POLICIES_DIR": str(self.folder / "policies")}
        for _ in range(count):
            with (self.folder / "worker.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        [str(BIN / "failover-worker"), "--concurrency", str(concurrency)],
                        env={**os.environ, "REDIS_URL": self.url, **paths},
                        cwd=self.folder,
                        stdout=log,
                        stderr=log,
                    )
                )
        wait_until(lambda: int(self.client.scard("rq:workers")) >= count, "the workers register")

    def sums(self) -> dict[str, int]:
        found = self.client.hgetall(keyspace.SPENT + MONTH)
        return {name.decode(): int(value) for name, value in found.items() if value.isdigit()}

    def results(self, ids: list[str], seconds: float = 600) -> list[JobResult]:
        producer = self.producer
        wait_until(lambda: all(producer.ended(ids)), "all jobs ended", seconds)
        return [result for result in producer.fetch_many(ids) if result is not None]


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder) / "valkey") as url,
        connect(url) as client,
        provider.running() as providers,
    ):
        here = Place(url, client, providers, Path(folder))
        here.policies()
        try:
            yield here
        finally:
            for process in here.processes:
                process.kill()
                process.wait()


def micros_served(providers: Control, upstream: str) -> int:
    """Each answer that was sent whole, in exact decimals, rounded up to the micro-dollar."""
    price = {name: Decimal(str(rate)) for name, rate in PRICES[upstream].items()}
    total = Decimal(0)
    for entry in providers.log(upstream):
        usage = entry["usage"]
        if usage is None:
            continue
        if "input_tokens" in usage:  # Anthropic's counts leave the cached part out of the prompt
            fresh, written = usage["input_tokens"], usage["cache_creation_input_tokens"]
            cached, output = usage["cache_read_input_tokens"], usage["output_tokens"]
        else:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            fresh, written, output = usage["prompt_tokens"] - cached, 0, usage["completion_tokens"]
        cost = fresh * price["input"] + cached * price["cachedInput"] + output * price["output"]
        cost += written * price.get("cacheWrite", price["input"])
        total += cost.to_integral_value(ROUND_CEILING)
    return int(total)


def job(number: int, tokens: int = 400, **fields: Any) -> LLMJob:
    text = f"question {number} " * (1 + number % 40)
    return LLMJob(body={"messages": [{"role": "user", "content": text}], "max_tokens": tokens}, **fields)


def caps() -> dict[str, Any]:
    """A thousand jobs, eight workers, and a cap that is worth some hundred of them."""
    with place() as here:
        here.routes(hot=[{"upstream": "a"}])
        hard = 400_007
        here.policies(budgets={"tenants": {"acme": {"hard_usd": hard / 1e6}}})
        here.providers.behave("a", latency=(0.05, 0.3), text="word " * 150)
        here.workers(8, 100)
        here.producer.enqueue_many([job(number, tenant_id="acme") for number in range(1000)])
        most = 0

        def full() -> bool:
            nonlocal most
            found = here.sums()
            held = sum(found.get(f"{kind}:tenant:acme", 0) for kind in ("spent", "ambiguous", "held"))
            most = max(most, held)
            status = json.loads(here.client.hget(keyspace.ALERT_THRESHOLDS + MONTH, "tenant:acme") or b"{}")
            return not found.get("held:tenant:acme") and bool(status.get("full"))

        wait_until(full, "the cap is used up")
        spent = here.sums()["spent:tenant:acme"]
        served = micros_served(here.providers, "a")
        done = int(here.client.zcard(keyspace.finished("ai-tasks")))
        return {
            "cap": hard,
            "most spent + reserved at any look": most,
            "spent": spent,
            "served by the provider": served,
            "done": done,
            "passed": most <= hard and spent == served <= hard and spent > 0.9 * hard,
        }


def rate() -> dict[str, Any]:
    """A route of 60 calls a minute and eight workers, for three minutes and a half."""
    with place() as here:
        here.routes(hot=[{"upstream": "a", "rpm": 60}])
        here.providers.behave("a", latency=(0.2, 0.8))
        here.workers(8, 50)
        here.producer.enqueue_many([job(number) for number in range(1000)])
        wait_until(lambda: here.providers.account("a")["asked"] > 0, "the first call")
        began = time.time()
        wait_until(lambda: time.time() - began > 210, "three minutes and a half")
        at = sorted(entry["at"] for entry in here.providers.log("a"))
        most = max(sum(begin <= each < begin + 60 for each in at) for begin in at)
        used = 180 / (at[180] - at[0])  # a second, over three bursts and the waits between them
        return {
            "calls": len(at),
            "most in any window of a minute": most,
            "used of 60 a minute": f"{used:.1%}",
            "failed": sum(entry["status"] != 200 for entry in here.providers.log("a")),
            "passed": most <= 60 and used >= 0.95,
        }


def fair() -> dict[str, Any]:
    """Ten jobs alone, and the same ten beside ten thousand of another tenant."""
    seconds = {}
    for beside in (0, 10_000):
        with place() as here:
            here.routes(hot=[{"upstream": "a"}])
            here.providers.behave("a", latency=(0.5, 1.5))
            here.producer.enqueue_many([job(number, tenant_id="acme") for number in range(beside)])
            here.workers(2, 50)
            if beside:
                wait_until(lambda: here.providers.account("a")["answered"] > 300, "the ramp is over")
            began = time.monotonic()
            ids = [r.job_id for r in here.producer.enqueue_many([job(n, tenant_id="globex") for n in range(10)])]
            here.results(ids)
            seconds[beside] = time.monotonic() - began
    return {
        "seconds alone": round(seconds[0], 2),
        "seconds beside 10,000 of another tenant": round(seconds[10_000], 2),
        "passed": seconds[10_000] <= 2 * seconds[0],
    }


def day() -> dict[str, Any]:
    """4,000 mixed jobs of five tenants over three providers and two dialects, which fail in turns."""
    with place() as here:
        here.routes(
            hot=[{"upstream": "a"}],
            warm=[
                {"upstream": "b", "streamTimeoutSeconds": 5},
                {"upstream": "c", "api": "anthropic", "baseUrl": here.providers.base_url("c"), "model": "claude-x"},
            ],
        )
        here.policies(budgets={"total": {"hard_usd": 1000}})
        troubles: list[Callable[[], None]] = [
            lambda: here.providers.behave("a", status=503, every=3),
            lambda: here.providers.behave("a", status=529, every=2, cached_tokens=20),
            lambda: here.providers.behave("a", status=429, retry_after="1", every=4),
            lambda: here.providers.behave("b", status=500, every=3, cached_tokens=7),
            lambda: here.providers.behave("b", finish_reason="length", cached_tokens=3),
            lambda: here.providers.behave("c", cached_tokens=11),
            lambda: here.providers.behave("c", status=500, every=5),
            lambda: here.providers.behave("a", error={"message": "try later", "type": "server_error"}, every=2),
            lambda: here.providers.behave("a"),
        ]
        here.workers(3, 50)
        draw = random.Random(3)
        ids: list[str] = []
        for number in range(40):
            draw.choice(troubles)()
            tenants = [f"tenant{draw.randrange(5)}" for _ in range(100)]
            jobs = [job(100 * number + n, tenant_id=tenant, feature=f"f{n % 3}") for n, tenant in enumerate(tenants)]
            ids += [receipt.job_id for receipt in here.producer.enqueue_many(jobs)]
            time.sleep(0.2)
        for upstream in PRICES:
            here.providers.behave(upstream)
        results = here.results(ids)
        wait_until(lambda: int(here.client.hlen(keyspace.RESERVATIONS)) == 0, "the ledger is closed")
        found = here.sums()
        served = {upstream: micros_served(here.providers, upstream) for upstream in PRICES}
        booked = {upstream: found.get(f"spent:provider:{upstream}", 0) for upstream in PRICES}
        of_tenants = sum(value for name, value in found.items() if name.startswith("spent:tenant:"))
        answers = sum(round((result.cost_usd or 0) * 1e6) for result in results)
        asked = sum(len(here.providers.log(upstream)) for upstream in PRICES)
        return {
            "jobs": len(results),
            "done": sum(result.status is JobStatus.DONE for result in results),
            "calls": asked,
            "rows": int(here.client.xlen(keyspace.LEDGER + MONTH)) + int(here.client.hlen(keyspace.AMBIGUOUS + MONTH)),
            "micro-dollars booked": booked,
            "micro-dollars by the providers' logs": served,
            "micro-dollars of all tenants": of_tenants,
            "micro-dollars of all results": answers,
            "passed": booked == served and of_tenants == sum(served.values()) == found["spent:total"],
        }


def kill() -> dict[str, Any]:
    """Workers that are killed again and again under a hard cap."""
    with place() as here:
        here.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
        here.policies(
            budgets={"total": {"hard_usd": 1000}}, jobs={"job_types": {"default": {"attempts": 100, "executions": 50}}}
        )
        here.providers.behave("a", latency=(0.1, 0.6))
        here.workers(4, 25)
        ids = [receipt.job_id for receipt in here.producer.enqueue_many([job(number) for number in range(2000)])]
        draw, kills = random.Random(5), 0
        while not all(here.producer.ended(ids)):
            time.sleep(draw.uniform(0.5, 1.5))
            if kills < 20:
                alive = [process for process in here.processes if process.poll() is None]
                draw.choice(alive).send_signal(signal.SIGKILL)
                here.workers(1, 25)
                kills += 1
        wait_until(lambda: int(here.client.hlen(keyspace.RESERVATIONS)) == 0, "the ledger is closed", 120)
        found = here.sums()
        served = sum(micros_served(here.providers, upstream) for upstream in ("a", "b"))
        spent, ambiguous = found["spent:total"], found.get("ambiguous:total", 0)
        here.client.delete(keyspace.SPENT + MONTH)
        subprocess.run([str(BIN / "failover"), "budget", "show"], env={"REDIS_URL": here.url}, cwd=here.folder, check=True,
                       capture_output=True)  # fmt: skip
        again = here.sums()
        return {
            "kills": kills,
            "spent": spent,
            "served by the providers": served,
            "spent + may be billed": spent + ambiguous,
            "still reserved": found.get("held:total", 0),
            "the same after the sums were lost": again["spent:total"] == spent
            and again.get("ambiguous:total", 0) == ambiguous,
            "passed": spent <= served <= spent + ambiguous and not found.get("held:total", 0),
        }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"caps": caps, "fair": fair, "day": day, "kill": kill, "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    arguments = parser.parse_args()
    passed = True
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            print(f"{name}: {(part.__doc__ or '').strip()}", flush=True)
            for what, figure in part().items():
                print(f"  {what:45} {figure}", flush=True)
                passed = passed and (what != "passed" or bool(figure))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
