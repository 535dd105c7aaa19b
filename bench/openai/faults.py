"""`make bench-openai-faults`: the sixteen faults of `make bench-faults`, met by a client of OpenAI's SDK that streams.

    python -m bench.openai.faults [--row NAME]

A whole `failover serve`, a worker, and the SDK with its own retries. A row passes when the client has the whole answer, or the
reason of the provider that refused it, with exactly so many calls of each route. Live, a stream that breaks after its first words
may be an error instead. An answer that is cut and looks whole never passes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from bench.faults import FIRST_TOKEN_SECONDS, ROWS, TEXT, Row, grounds, routes_of
from bench.throughput import BIN, free_port, process, wait_until
from ops.local import session
from ops.simulators import provider
from producer.connection import connect
from producer.policy import Policies, load_policies
from worker.configuration import Configuration
from worker.routes.route import read_routes

TOKEN = "a-token-of-the-bench"  # noqa: S105 - of this process alone
REASON = "content"  # what the client of the content filter must read
QUESTION = [{"role": "user", "content": "How many seas are there?"}]


@contextmanager
def served(url: str, folder: Path) -> Iterator[openai.OpenAI]:
    """A client of a web process."""
    port = free_port()
    environment = {"REDIS_URL": url, "PORT": str(port), "FAILOVER_API_TOKEN": TOKEN}
    base = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{base}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    with process([str(BIN / "failover"), "serve"], environment, folder / "web.log"):
        wait_until(answers, "the start of the web process", 30)
        with openai.OpenAI(base_url=f"{base}/v1", api_key=TOKEN) as client:
            yield client


def streamed(client: openai.OpenAI, row: Row, mode: str) -> str | openai.APIError:
    """The text that the client reads until the stream ends as whole ones do, or its error."""
    body: dict[str, Any] = row.body or {"messages": QUESTION}
    text, finished = "", False
    try:
        for part in client.chat.completions.create(
            model="default", stream=True, extra_headers={"x-failover-stream": mode}, **body
        ):
            for choice in part.choices:
                text += choice.delta.content or ""
                finished = finished or choice.finish_reason is not None
    except openai.APIError as error:
        return error
    return text if finished else f"without an end: {text}"


def run(row: Row, mode: str, url: str, control: provider.Control, folder: Path, policies: Policies) -> tuple[str, str]:
    """(what the client got, what is wrong; "" for a pass)."""
    routes_of(row, control, folder)
    with connect(url) as client:
        client.flushdb()
    with (
        served(url, folder) as sdk,
        session.own_worker(url, Configuration(policies, read_routes(folder / "routes.json", {})), slots=1),
        ThreadPoolExecutor(row.jobs) as pool,
    ):
        got = list(pool.map(lambda _: streamed(sdk, row, mode), range(row.jobs)))
    calls = tuple(control.account(name)["asked"] for name in ("hot", "warm"))
    errors = [each for each in got if isinstance(each, openai.APIError)]
    words = f"{len(got) - len(errors)} whole" + (f", {len(errors)} errors: {str(errors[0])[:90]}" if errors else "")
    if truncated := [each for each in got if isinstance(each, str) and each != TEXT]:
        return words, f"an answer that is not the whole one: {truncated[0]!r}"
    if row.route is None:
        told = len(errors) == row.jobs and all(REASON in str(each) for each in errors)
        return words, "" if told and calls == row.calls else f"no reason, or calls {calls} instead of {row.calls}"
    broke = mode == "live" and all("broke off" in str(each) for each in errors)
    if errors and not broke:
        return words, "an error in place of an answer"
    return words, "" if calls == row.calls else f"calls {calls} instead of {row.calls}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--row", choices=[row.name for row in ROWS])
    chosen = parser.parse_args()
    policies, failed = load_policies({}), 0
    with grounds() as (url, control, folder):
        for mode in ("whole", "live"):
            for row in ROWS:
                if chosen.row in (None, row.name):
                    words, wrong = run(row, mode, url, control, folder, policies)
                    failed += bool(wrong)
                    print(f"{mode:6} {row.name:26} {words}{f'  FAILED: {wrong}' if wrong else ''}", flush=True)
    print(f"{failed} failed; the limit for a silent start is {FIRST_TOKEN_SECONDS:g} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
