"""`make bench-openai-batch`: a batch of 2,000 lines by OpenAI's SDK; the hot provider is down for a third of it, and the worker
and the web process are killed once each.

    python -m bench.openai.batch [--lines 2000]

Passes when the batch is completed, its output has every line once and in order, and the providers answered no line twice but
those that were in flight at the kill.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import time
from typing import Any

import openai

from bench.faults import grounds
from bench.openai.faults import TOKEN
from bench.openai.kills import Place, kill
from bench.throughput import wait_until
from ops.simulators import provider

LATENCY = (0.2, 0.6)


def content(lines: int) -> bytes:
    """A batch file as the SDK's documentation has it."""
    return "".join(
        json.dumps(
            {
                "custom_id": f"request-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"note {number}"}]},
            }
        )
        + "\n"
        for number in range(lines)
    ).encode()


def run(place: Place, control: provider.Control, lines: int) -> dict[str, Any]:
    worker, web = place.worker(), place.web()
    wait_until(lambda: place.client.scard("rq:workers") == 1, "the worker")
    for name in ("hot", "warm"):
        control.behave(name, latency=LATENCY)
    began, in_flight = time.monotonic(), 0
    with openai.OpenAI(base_url=f"http://127.0.0.1:{place.port}/v1", api_key=TOKEN, max_retries=30) as sdk:
        file = sdk.files.create(file=("in.jsonl", io.BytesIO(content(lines))), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

        def ended() -> int:
            counts = sdk.batches.retrieve(batch.id).request_counts
            return counts.completed + counts.failed if counts else 0

        def reached(share: float) -> None:
            wait_until(lambda: ended() >= share * lines, f"{share:.0%} of the lines", 120)

        reached(1 / 3)
        control.behave("hot", status=503)
        reached(1 / 2)
        worker.send_signal(signal.SIGSTOP)  # so that what is in flight can be counted
        in_flight = sum(int(control.account(name)["in_flight"]) for name in ("hot", "warm"))
        kill(worker)
        worker = place.worker()
        reached(2 / 3)
        control.behave("hot", latency=LATENCY)
        kill(web)
        web = place.web()
        wait_until(lambda: sdk.batches.retrieve(batch.id).status == "completed", "the end of the batch", 180)
        done = sdk.batches.retrieve(batch.id)
        output = [json.loads(line) for line in sdk.files.content(done.output_file_id or "").text.splitlines()]
    for process in (web, worker):
        process.terminate()
        process.wait()
    return {**_judged(control, done, output, lines, in_flight), "seconds": round(time.monotonic() - began, 1)}


def _judged(
    control: provider.Control, done: Any, output: list[dict[str, Any]], lines: int, in_flight: int
) -> dict[str, Any]:
    """What became of the batch. `in_flight`: calls at the kill of the worker."""
    answers = [control.account(name)["answers_by_key"] for name in ("hot", "warm")]
    paid = sum(sum(each.values()) for each in answers)
    in_order = [line["custom_id"] for line in output] == [f"request-{number}" for number in range(lines)]
    counts = done.request_counts.to_dict() if done.request_counts else {}
    return {
        "status": done.status,
        "counts": counts,
        "lines in order": in_order,
        "answers paid": paid,
        "in flight at the kill": in_flight,
        "answered by": {name: sum(each.values()) for name, each in zip(("hot", "warm"), answers, strict=True)},
        "passed": in_order and counts.get("completed") == lines and paid <= lines + in_flight,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--lines", type=int, default=2000)
    chosen = parser.parse_args()
    with grounds() as (url, control, folder):
        found = run(Place(url, control, folder, ("hot", "warm")), control, chosen.lines)
    for name, value in found.items():
        print(f"  {name:24} {value}")
    sys.exit(not found["passed"])


if __name__ == "__main__":
    main()
