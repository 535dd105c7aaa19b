"""The `failover` command from the outside: files in and out, exit codes, kills in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.local import embedded
from ops.reports.why import without_answer
from producer import JobResult, JobStatus, Producer, keyspace
from producer.job import DeadReason
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.control import pause


def batch_file(folder: Path, count: int, name: str = "in.jsonl") -> Path:
    path = folder / name
    with path.open("w") as file:
        for number in range(count):
            body = {"messages": [{"role": "user", "content": f"prompt {number}"}]}
            line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def calls(workshop: Workshop, upstream: str = "hot") -> int:
    return int(workshop.providers.account(upstream)["asked"])


@pytest.fixture
def routed(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    return workshop


def test_a_batch_comes_back_in_input_order_and_the_same_file_again_calls_nobody(routed: Workshop) -> None:
    routed.providers.behave("hot", latency=(0.0, 0.2))
    batch_file(routed.folder, 60)
    routed.worker()
    first = routed.run("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert first.returncode == 0, first.stderr
    assert "60 done, 0 dead, 0 malformed" in first.stderr
    out = lines(routed.folder / "out.jsonl")
    assert [line["custom_id"] for line in out] == [f"c{number}" for number in range(60)]
    assert out[7]["response"]["body"]["choices"][0]["message"]["content"] == "You said: prompt 7"
    assert calls(routed) == 60
    before = (routed.folder / "out.jsonl").read_bytes()
    second = routed.run("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert second.returncode == 0
    assert "60 of them from an earlier run" in second.stderr
    assert (routed.folder / "out.jsonl").read_bytes() == before
    assert calls(routed) == 60


def test_malformed_lines_are_told_and_the_rest_is_processed(routed: Workshop) -> None:
    path = batch_file(routed.folder, 3)
    good = path.read_text().splitlines()
    no_role = json.dumps({**json.loads(good[0]), "custom_id": "x", "body": {"messages": [{"content": "hi"}]}})
    path.write_text("\n".join([good[0], "{oops", good[1], no_role, good[2]]) + "\n")
    routed.worker()
    ended = routed.run("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl", "--errors", "err.jsonl")
    assert ended.returncode == 1
    assert "line 2: is not JSON: key must be a string at character 2" in ended.stderr
    assert "line 4: body.messages.0.role: is missing" in ended.stderr
    assert [line["custom_id"] for line in lines(routed.folder / "out.jsonl")] == ["c0", "c1", "c2"]
    assert [line["custom_id"] for line in lines(routed.folder / "err.jsonl")] == [None, "x"]


def test_many_equal_faults_are_a_few_lines_and_a_count(routed: Workshop) -> None:
    path = batch_file(routed.folder, 1)
    wrong = json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": {}})
    path.write_text(path.read_text() + "\n".join([wrong, "{oops"] * 500) + "\n")
    ended = routed.run("failover", "batch", "run", "in.jsonl", "--detach")
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) < 20
    assert "and 497 more like this (url)" in ended.stderr and "and 497 more like this (not JSON)" in ended.stderr


def test_dash_is_standard_input_and_output(routed: Workshop) -> None:
    content = batch_file(routed.folder, 3).read_text()
    routed.worker()
    ended = routed.run("failover", "batch", "run", "-", "-o", "-", stdin=content)
    assert ended.returncode == 0 and not (routed.folder / "-").exists()
    assert [json.loads(line)["custom_id"] for line in ended.stdout.splitlines()] == ["c0", "c1", "c2"]
    wrong = routed.run("failover", "batch", "run", "-", "-o", "-", stdin=f"[{content}]")
    assert wrong.returncode == 2 and "JSON array" in wrong.stderr and wrong.stdout == ""


def test_dead_jobs_are_error_lines_and_exit_1(routed: Workshop) -> None:
    batch_file(routed.folder, 2)
    routed.providers.behave("hot", status=400, error={"message": "no such parameter", "param": "messages"}, times=1)
    routed.worker("--concurrency", "1")
    ended = routed.run("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert ended.returncode == 1
    dead, done = lines(routed.folder / "out.jsonl")
    assert dead["error"] is None and dead["response"]["status_code"] == 400
    assert dead["response"]["body"]["error"]["message"] == "bad_request: no such parameter"
    assert done["error"] is None


def test_a_batch_killed_in_the_middle_and_run_again_is_whole(routed: Workshop) -> None:
    """Without REDIS_URL: the embedded server and the command's own worker. The kill takes both down but the server."""
    routed.providers.behave("hot", latency=(0.2, 0.8))
    batch_file(routed.folder, 200)
    command = ("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl")
    killed = routed.start(*command, REDIS_URL="")
    until(lambda: routed.providers.account("hot")["answered"] >= 60, "some are answered")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    until(lambda: routed.providers.account("hot")["in_flight"] == 0, "the calls of the killed worker break off")
    in_flight = sum(calls(routed, upstream) for upstream in ("hot", "warm")) - len(done_jobs(routed))
    again = routed.run(*command, REDIS_URL="")
    assert again.returncode == 0, again.stderr
    out = lines(routed.folder / "out.jsonl")
    assert [line["custom_id"] for line in out] == [f"c{number}" for number in range(200)]
    assert all(line["error"] is None for line in out)
    assert in_flight <= 100
    assert sum(calls(routed, upstream) for upstream in ("hot", "warm")) - 200 <= in_flight
    assert not (routed.folder / ".failover/valkey/valkey.pid").exists()  # the last user stopped the server


def done_jobs(routed: Workshop) -> list[bytes]:
    socket = embedded.socket_path(routed.folder / ".failover" / "valkey")
    with redis.Redis(unix_socket_path=str(socket)) as client:
        found: list[bytes] = client.execute_command("ZRANGE", keyspace.finished("ai-tasks"), 0, -1)
        return found


def test_detach_enqueues_and_says_that_nobody_listens(routed: Workshop, producer: Producer) -> None:
    batch_file(routed.folder, 5)
    ended = routed.run("failover", "batch", "run", "in.jsonl", "--detach")
    assert ended.returncode == 0
    assert "no worker listens on ai-tasks" in ended.stderr
    assert producer.client.llen(keyspace.queue("ai-tasks")) == 5


def test_submit_and_wait_prints_the_answer(routed: Workshop) -> None:
    routed.worker()
    ended = routed.run("failover", "submit", "--prompt", "hello", "--wait", "20")
    assert (ended.returncode, ended.stdout) == (0, "You said: hello\n")
    assert "hot/hot-1 (hot)" in ended.stderr
    piped = routed.run(
        "failover", "submit", "-", "--wait", "20", "--json", stdin=b'{"messages": [{"role": "user", "content": "x"}]}'
    )
    assert json.loads(piped.stdout)["completion"]["choices"][0]["message"]["content"] == "You said: x"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_submit_and_wait_says_why_a_job_is_dead_and_what_to_do(routed: Workshop, options: list[str]) -> None:
    for upstream in ("hot", "warm"):
        routed.providers.behave(upstream, status=400, error={"message": "messages.0.content is too odd"})
    routed.worker()
    ended = routed.run("failover", "submit", "--prompt", "hello", "--wait", "20", *options)
    told = ended.stderr.splitlines()
    assert (ended.returncode, len(told)) == (1, 2)
    assert re.fullmatch(r"job (\w+) is dead \(rejected\): .*is too odd.*", told[0])
    assert told[1].startswith("next: correct the request and submit it again; `failover job why ")


def test_submit_and_wait_says_what_a_job_still_waits_for(routed: Workshop) -> None:
    ended = routed.run("failover", "submit", "--prompt", "hello", "--wait", "0.1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.search(r"job (\w+) is queued: it has not ended yet\nnext: `failover job why \1`", ended.stderr)


def test_every_reason_of_a_dead_letter_has_a_next_step() -> None:
    for reason in DeadReason:
        told = without_answer(JobResult(job_id="j1", status=JobStatus.DEAD, dead_reason=reason, dead_detail="why"))
        assert re.match(rf"job j1 is dead \({reason}\): why\nnext: .+", told)
        assert "{" not in told


def test_submit_prints_an_id_that_job_show_knows(routed: Workshop) -> None:
    ended = routed.run("failover", "submit", "--prompt", "hello", "--idempotency-key", "k")
    job_id = ended.stdout.strip()
    assert routed.run("failover", "submit", "--prompt", "hello", "--idempotency-key", "k").stdout.strip() == job_id
    assert json.loads(routed.run("failover", "job", "show", job_id, "--json").stdout)["status"] == "queued"
    conflict = routed.run("failover", "submit", "--prompt", "other", "--idempotency-key", "k")
    assert conflict.returncode == 1 and job_id in conflict.stderr
    routed.worker()
    until(lambda: "You said: hello" in routed.run("failover", "job", "show", job_id).stdout, "the answer is shown")


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (("job", "show", "nope"), 1, "no job has the id 'nope'"),
        (("submit",), 2, "give exactly one of"),
        (("submit", "--wait", "3"), 2, "give exactly one of"),
        (("submit", "x", "--prompt", "y"), 2, "give exactly one of"),
        (("submit", "Say", "hello"), 2, "put it in quotes, 'Say hello'"),
        (("submit", "x", "--wait", "-1"), 2, "'--wait'"),
        (("submit", "--prompt", "x", "--job-type", "nope"), 2, "job_type: 'nope' is not in policies/jobs.yaml"),
        (("submit", "--prompt", "  "), 2, "the prompt is empty"),
        (("submit", "--file", "missing"), 2, "No such file"),
        (("batch", "run", "missing.jsonl", "-o", "out"), 2, "missing.jsonl: No such file or directory"),
        (("batch", "run", "in.jsonl"), 2, "-o OUT.jsonl"),
        (("batch", "run", "in.jsonl", "-o", "no/such/folder/out"), 2, "the folder no/such/folder does not exist"),
        (("nope",), 2, "No such command"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(routed: Workshop, command: tuple[str, ...], code: int, told: str) -> None:
    (routed.folder / "in.jsonl").write_text("")
    ended = routed.run("failover", *command)
    assert ended.returncode == code
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [("status",), ("submit", "--prompt", "x"), ("pause",), ("job", "show", "x")])
def test_without_redis_every_command_says_so_and_exits_3(routed: Workshop, command: tuple[str, ...]) -> None:
    ended = routed.run("failover", *command, REDIS_URL="redis://:hunter2@127.0.0.1:9/0")
    assert ended.returncode == 3
    assert "cannot be used" in ended.stderr and "hunter2" not in ended.stderr and "Traceback" not in ended.stderr


def test_one_key_in_the_environment_is_enough_for_a_first_real_run(routed: Workshop) -> None:
    """No REDIS_URL, a map with variables that are not set: what is left out is said, the rest works."""
    route = {"upstream": "hot", "apiKeyEnv": "SOME_KEY"}
    routed.routes(hot=[{**route, "baseUrl": "${NOT_SET}"}], warm=[route])
    ended = routed.run("failover", "submit", "--prompt", "hello", "--wait", "20", REDIS_URL="", SOME_KEY="sk-secret")
    assert (ended.returncode, ended.stdout) == (0, "You said: hello\n")
    assert "embedded Valkey" in ended.stderr
    assert "NOT_SET is not set" in ended.stderr
    assert "sk-secret" not in ended.stderr


def test_two_commands_share_the_embedded_server(routed: Workshop) -> None:
    routed.providers.behave("hot", latency=(6.0, 6.5))  # longer than a command takes to start on a busy machine
    batch_file(routed.folder, 10)
    running = routed.start("failover", "batch", "run", "in.jsonl", "-o", "out.jsonl", REDIS_URL="")
    until(lambda: calls(routed) > 0, "the batch runs")
    status = json.loads(routed.run("failover", "status", "--json", REDIS_URL="").stdout)
    assert status["queues"][0]["in_flight"] > 0
    assert running.wait(timeout=30) == 0
    assert len(lines(routed.folder / "out.jsonl")) == 10


def test_the_demo_passes_and_leaves_nothing_behind(routed: Workshop) -> None:
    ended = routed.run("failover", "demo", "--json", REDIS_URL="")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict = json.loads(ended.stdout)
    assert verdict["jobs"] == verdict["done"] > 40
    assert (verdict["lost"], verdict["double"], verdict["passed"]) == (0, 0, True)
    assert any(route.startswith("openai") for route in verdict["by_route"])
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(routed.folder).encode() in content(path)]
    assert running == []


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_submit_that_waits_executes_its_own_job_alone(routed: Workshop) -> None:
    for prompt in ("one", "two"):
        assert routed.run("failover", "submit", "--prompt", prompt, REDIS_URL="").returncode == 0
    mine = routed.run("failover", "submit", "--wait", "30", "--prompt", "three", REDIS_URL="")
    assert mine.returncode == 0, mine.stderr
    assert "not executed now: 2 jobs of earlier commands; --all executes them" in mine.stderr
    assert "also executed" not in mine.stderr
    assert calls(routed) == 1
    everything = routed.run("failover", "submit", "--wait", "30", "--all", "--prompt", "four", REDIS_URL="")
    assert everything.returncode == 0, everything.stderr
    assert "also executed now: 2 unfinished jobs of earlier commands" in everything.stderr
    assert calls(routed) >= 2


def test_a_closed_input_or_output_is_no_traceback(workshop: Workshop) -> None:
    for closed in ("- <&-", "hello >&-", "hello >&- 2>&-"):
        command = f"{sys.executable} -m failover_worker submit {closed}"
        environment = {**os.environ, "REDIS_URL": workshop.url}
        done = subprocess.run(
            ["sh", "-c", command], env=environment, cwd=workshop.folder, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == (2 if closed.startswith("-") else 0)


def test_a_wait_says_what_holds_the_job_up_and_ctrl_c_that_it_stays_accepted(
    routed: Workshop, client: redis.Redis
) -> None:
    routed.run("failover", "pause", "--reason", "a look at the bill")
    process = routed.start("failover", "submit", "hello", "--wait", "60")
    told = "not answered yet: paused: everything"
    until(lambda: told in routed.log(process), "it says why the job does not start")
    process.send_signal(signal.SIGTERM)  # works like Ctrl-C, which a shell ignores for what it starts with &
    assert process.wait(30) == 130
    assert "a look at the bill" in routed.log(process)
    assert "interrupted; accepted jobs stay accepted" in routed.log(process)
    assert client.llen(keyspace.queue("ai-tasks")) == 1


def test_a_queued_job_says_that_no_route_can_be_used(routed: Workshop, client: redis.Redis) -> None:
    routed.worker()
    until(lambda: "hot/hot-1" in routed.run("failover", "status").stdout, "the worker has told its routes")
    for route in ("hot/hot-1", "warm/warm-1"):
        pause.pause(client, pause.Scope(route=route), who="kira", why="too slow")
    job_id = routed.run("failover", "submit", "hello").stdout.strip()
    until(
        lambda: "no route can be used: hot/hot-1" in routed.run("failover", "job", "why", job_id).stdout, "it is said"
    )
