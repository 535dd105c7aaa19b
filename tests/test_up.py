"""`failover up`: worker, web process and embedded Valkey of one terminal, and what is left when they end."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.throughput import free_port
from producer import Producer
from producer.job import JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import BIN, Workshop

EMBEDDED = {"REDIS_URL": ""}


@pytest.fixture
def routed(workshop: Workshop) -> Iterator[Workshop]:
    workshop.routes(hot=[{"upstream": "hot"}])
    yield workshop
    for pid in running(workshop):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def running(workshop: Workshop) -> list[int]:
    """The processes whose working folder, or data, is the workshop."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            folder, command = (process / "cwd").readlink(), (process / "cmdline").read_bytes()
            if command and (folder == workshop.folder or str(workshop.folder).encode() in command):
                found.append(int(process.name))
    return found


def child(workshop: Workshop, name: str) -> int:
    """The process id of a part."""
    marks = (b"--part", name.encode())
    return next(pid for pid in running(workshop) if all(m in Path(f"/proc/{pid}/cmdline").read_bytes() for m in marks))


def start(workshop: Workshop, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    """`failover up` that is ready, and the URL of its web process."""
    up = workshop.start("failover", "up", "--port", "0", **environment)

    def ready() -> bool:
        assert up.poll() is None, workshop.log(up)
        return "ready: " in workshop.log(up)

    until(ready, "worker and web process run", 60)
    found = re.search(r"page: (http://127\.0\.0\.1:[1-9]\d+)/", workshop.log(up))
    assert found is not None
    return up, found[1]


def test_jobs_of_the_terminal_beside_and_of_apps_run_and_ctrl_c_leaves_nothing(routed: Workshop) -> None:
    up, url = start(routed, **EMBEDDED)
    job_id = routed.run("failover", "submit", "one", **EMBEDDED)
    assert "no worker listens" not in job_id.stderr
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as web:
        assert (
            web.post("/jobs", json=chat("two").model_dump(), headers={"Prefer": "wait=20"}).json()["status"] == "done"
        )
        assert web.get(f"/jobs/{job_id.stdout.strip()}", headers={"Prefer": "wait=20"}).json()["status"] == "done"
        routed.providers.behave("hot", latency=(3.0, 3.0))
        web.post("/jobs", json=chat("three").model_dump())
        until(lambda: routed.providers.account("hot")["in_flight"] == 1, "the third runs")
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    told = routed.log(up)
    assert "0 queued, 0 in flight, 0 waiting, 3 done, 0 dead" in told  # the running one has ended
    assert told.splitlines()[-1] == "stopped; left for the next start: 0 unfinished jobs"
    assert running(routed) == []


def test_a_killed_up_leaves_no_process_and_the_running_job_ends(routed: Workshop) -> None:
    routed.providers.behave("hot", latency=(3.0, 3.0))
    up, _ = start(routed, **EMBEDDED)
    submitted = routed.start("failover", "submit", "one", **EMBEDDED)  # its end may take longer than the job
    until(lambda: routed.providers.account("hot")["in_flight"] == 1, "it runs")
    up.kill()
    assert submitted.wait(60) == 0
    job_id = routed.log(submitted).splitlines()[-1]
    until(lambda: running(routed) == [], "worker, web process and Valkey end", 60)
    assert '"status": "done"' in routed.run("failover", "job", "show", job_id, "--json", **EMBEDDED).stdout


def test_with_redis_url_that_server_is_used_and_a_killed_worker_is_replaced(
    routed: Workshop, producer: Producer
) -> None:
    up, _ = start(routed)
    os.kill(child(routed, "worker"), signal.SIGKILL)
    until(lambda: "worker was killed by SIGKILL, and is started again" in routed.log(up), "it is replaced")
    assert producer.wait(producer.enqueue(chat("hello")), 30).status is JobStatus.DONE
    assert not (routed.folder / ".failover" / "valkey").exists()
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    assert producer.client.ping()


def test_a_part_that_cannot_run_ends_it_with_its_own_words(routed: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = routed.run("failover", "up", "--port", str(taken.getsockname()[1]), **EMBEDDED)
    assert ended.returncode == 2
    assert "web cannot run: 127.0.0.1:" in ended.stderr and "cannot be listened on" in ended.stderr
    assert running(routed) == []


def test_a_wrong_configuration_is_said_before_anything_starts(routed: Workshop) -> None:
    (routed.folder / "routes.json").write_text("{")
    wrong = routed.run("failover", "up", **EMBEDDED)
    assert (wrong.returncode, "routes.json" in wrong.stderr) == (2, True)
    assert not (routed.folder / ".failover").exists()


def test_on_a_terminal_it_shows_the_status_and_ctrl_c_ends_it(routed: Workshop) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(routed.folder)
        environment = {**os.environ, **routed.environment, **EMBEDDED, "TERM": "xterm"}
        os.execve(  # noqa: S606 - no shell is wanted
            BIN / "failover", ["failover", "up", "--port", str(free_port())], environment
        )
    screen = b""

    def shows(*texts: bytes) -> bool:
        nonlocal screen
        with contextlib.suppress(OSError):  # Linux's end of a terminal
            screen += os.read(terminal, 65536)
        return all(text in screen for text in texts)

    until(lambda: shows(b"ready: ", b"ai-tasks", b"hot/hot-1", b"no calls yet"), "the status is drawn", 60)
    os.write(terminal, b"\x03")
    until(lambda: shows(b"stopped; left for the next start"), "it stops")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"Traceback" not in screen and b"\\u00" not in screen
    until(lambda: running(routed) == [], "nothing is left")
