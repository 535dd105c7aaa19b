"""`make bench-openai-kills`: the worker, then the web process, are killed while 150 clients of OpenAI's SDK wait.

    python -m bench.openai.kills [--waiting 100] [--streaming 50]

Both are started again at once. Passes when every client has its whole answer by the SDK's own retries, the provider got no more
calls than one a job and those in flight at the kills, and the ledger has a row for each call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import redis

from bench.faults import grounds
from bench.openai.faults import TOKEN
from bench.throughput import BIN, free_port, wait_until
from ops.simulators import provider
from producer import keyspace
from producer.connection import connect

LATENCY = (1.0, 3.0)
RETRIES = 8  # of the SDK, which waits 0.5 to 8 s before each: a web process needs some seconds to start
SLOTS = 60


class Place:
    """The processes of the run."""

    def __init__(self, url: str, control: provider.Control, folder: Path, names: Sequence[str] = ("a",)) -> None:
        """`names`: the upstreams of a hot route and, if there are two, of a warm one."""
        self.port = free_port()
        self.client = connect(url)
        self._folder, self._log = folder, (folder / "log").open("ab")
        price = {"input": 1, "output": 2}
        entries = [
            {"provider": each, "model": "m", "baseUrl": control.base_url(each), "apiKeyEnv": "", "price": price}
            for each in names
        ]
        tiers = dict(zip(("hot", "warm"), ([entry] for entry in entries), strict=False))
        (folder / "routes.json").write_text(json.dumps(tiers))
        routes = {"ROUTES_FILE": str(folder / "routes.json"), "REDIS_URL": url}
        self._environment = {**os.environ, **routes, "PORT": str(self.port), "FAILOVER_API_TOKEN": TOKEN}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        path = [str(BIN / command[0]), *command[1:]]
        return subprocess.Popen(path, env=self._environment, stdout=self._log, stderr=self._log, cwd=self._folder)

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("failover-worker", "--concurrency", str(SLOTS))

    def web(self) -> subprocess.Popen[bytes]:
        return self.start("failover", "serve")


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


async def asked(sdk: openai.AsyncOpenAI, number: int, *, stream: bool) -> str:
    """The answer that one client reads."""
    messages: Any = [{"role": "user", "content": str(number)}]
    if not stream:
        answer = await sdk.chat.completions.create(model="default", messages=messages)
        return answer.choices[0].message.content or ""
    text = ""
    async for part in await sdk.chat.completions.create(model="default", messages=messages, stream=True):
        text += "".join(choice.delta.content or "" for choice in part.choices)
    return text


async def all_asked(port: int, waiting: int, streaming: int) -> list[str | BaseException]:
    url = f"http://127.0.0.1:{port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=RETRIES) as sdk:
        asks = (asked(sdk, number, stream=number >= waiting) for number in range(waiting + streaming))
        return await asyncio.gather(*asks, return_exceptions=True)


def rows(client: redis.Redis) -> Mapping[str, int]:
    """The ledger's rows by where they are."""
    (month,) = {key.decode().rpartition(":")[2] for key in client.scan_iter("failover:ledger:2*")} or {""}
    closed, open_ = client.xlen(keyspace.LEDGER + month), client.hlen(keyspace.RESERVATIONS)
    return {"closed": closed, "ambiguous": client.hlen(keyspace.AMBIGUOUS + month), "open": open_}


async def run(place: Place, control: provider.Control, waiting: int, streaming: int) -> dict[str, Any]:
    worker, web = place.worker(), place.web()
    wait_until(lambda: place.client.scard("rq:workers") == 1, "the worker")
    control.behave("a", latency=LATENCY)
    task = asyncio.create_task(all_asked(place.port, waiting, streaming))
    await asyncio.to_thread(
        wait_until, lambda: control.account("a")["answered"] >= (waiting + streaming) // 10, "some answers"
    )
    worker.send_signal(signal.SIGSTOP)  # so that what is in flight can be counted
    in_flight = int(control.account("a")["in_flight"])
    kill(worker)
    worker = place.worker()
    await asyncio.sleep(1)
    kill(web)
    web = place.web()
    began = time.monotonic()
    answers = await task
    wait_until(lambda: not rows(place.client)["open"], "the ledger's sweep", 90)
    account = control.account("a")
    for process in (web, worker):
        process.terminate()
        process.wait()
    right = sum(answer == f"You said: {number}" for number, answer in enumerate(answers))
    wrong = [repr(answer)[:120] for number, answer in enumerate(answers) if answer != f"You said: {number}"]
    found = rows(place.client)
    jobs = waiting + streaming
    return {
        "clients with their answer": right,
        "others": wrong[:5],
        "seconds after the kills": round(time.monotonic() - began, 1),
        "calls": account["asked"],
        "in flight at the kill": in_flight,
        "rows of the ledger": found,
        "passed": right == jobs and account["asked"] <= jobs + in_flight and sum(found.values()) == account["asked"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--waiting", type=int, default=100)
    parser.add_argument("--streaming", type=int, default=50)
    chosen = parser.parse_args()
    with grounds() as (url, control, folder):
        found = asyncio.run(run(Place(url, control, folder), control, chosen.waiting, chosen.streaming))
    for name, value in found.items():
        print(f"  {name:30} {value}")
    sys.exit(not found["passed"])


if __name__ == "__main__":
    main()
