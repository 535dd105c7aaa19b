"""The deploy: the Procfile under a Procfile runner, Heroku's signals and certificate, connections, the doctor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
import yaml

from bench.throughput import free_port
from ops.local import embedded
from producer import Producer
from producer.job import JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.proxy import Proxy
from tests.support.web import TOKEN
from tests.support.workshop import BIN, Workshop

ROOT = Path(__file__).parent.parent
HEROKU_KILLS_AFTER = 30


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_every_process_of_the_procfile_replaces_its_shell() -> None:
    assert set(procfile()) == {"web", "worker", "release"}
    assert all(command.startswith("exec failover") for command in procfile().values())


def test_drains_fit_the_platforms() -> None:
    drain = re.compile(r"--drain-seconds (\d+)")
    assert int(drain.findall(procfile()["worker"])[0]) + 4 <= HEROKU_KILLS_AFTER
    services = {service["name"]: service for service in yaml.safe_load((ROOT / "render.yaml").read_text())["services"]}
    worker, web = services["failover-worker"], services["failover-web"]
    assert int(drain.findall(worker["startCommand"])[0]) + 4 <= worker["maxShutdownDelaySeconds"] <= 300
    assert web["maxShutdownDelaySeconds"] >= 30
    assert services["failover-redis"]["maxmemoryPolicy"] == "noeviction"
    assert services["failover-redis"]["plan"] != "free"


def test_the_manifests_name_only_variables_that_the_example_lists() -> None:
    listed = set(re.findall(r"^# ([A-Z_0-9]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    app = json.loads((ROOT / "app.json").read_text())
    blueprint = (ROOT / "render.yaml").read_text()
    named = set(app["env"]) | set(re.findall(r"key: ([A-Z_0-9]+)", blueprint))
    assert named - {"PYTHON_VERSION"} <= listed
    assert set(app["formation"]) == {"web", "worker"}


def test_the_requirements_are_hashed_and_name_no_host() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    pinned = re.findall(r"^[A-Za-z0-9_.\[\]-]+==", text, re.MULTILINE)
    assert len(pinned) > 30
    assert text.count("--hash=sha256:") >= len(pinned)


@pytest.fixture
def formation(workshop: Workshop) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`web` and `worker` of the Procfile under honcho."""
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    ours = {"PORT": str(free_port()), "REDIS_URL": workshop.url, "FAILOVER_API_TOKEN": TOKEN, **workshop.environment}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    command = [str(BIN / "honcho"), "--procfile", str(ROOT / "Procfile"), "start", "web", "worker"]
    log = workshop.folder / "honcho-0.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=workshop.folder,
            env={**os.environ, **ours, "PATH": path},
            stdout=sink,
            stderr=sink,
        )
    workshop.processes.append(process)
    url = f"http://127.0.0.1:{ours['PORT']}"
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=30
    ) as client:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return bool(client.get("/readyz").json() == {"ready": True, "reasons": [], "notes": []})
            except httpx.TransportError:
                return False

        until(ready, "web and worker run")
        yield process, client
    pids = dyno(process)
    signalled(pids, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(HEROKU_KILLS_AFTER)
    signalled(pids, signal.SIGKILL)


def dyno(runner: subprocess.Popen[bytes]) -> list[int]:
    """The runner and the processes that it started."""
    children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
    return [runner.pid, *map(int, children.read_text().split())] if children.exists() else []


def signalled(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_the_procfile_runs_and_survives_sigterm_as_heroku_sends_it(
    formation: tuple[subprocess.Popen[bytes], httpx.Client], workshop: Workshop, producer: Producer
) -> None:
    runner, web = formation
    body = {"body": {"messages": [{"role": "user", "content": "hi"}]}}
    assert web.post("/jobs", json=body, headers={"Prefer": "wait=20"}).json()["status"] == "done"
    workshop.providers.behave("a", latency=(1.0, 1.0))
    running = web.post("/jobs", json=body).json()["job_id"]
    until(lambda: workshop.providers.account("a")["in_flight"] == 1, "it runs")
    pids = dyno(runner)
    assert len(pids) == 3
    for _ in range(3):  # Heroku sends it to every process of the dyno, maybe several times
        signalled(pids, signal.SIGTERM)
    runner.wait(HEROKU_KILLS_AFTER)
    told = (workshop.folder / "honcho-0.log").read_text()
    assert len(re.findall(r"\(rc=0\)|rc=0", told)) >= 2, told
    assert "Traceback" not in told
    assert producer.fetch(running).status is JobStatus.DONE


def test_a_worker_takes_five_connections_and_a_web_process_six(
    formation: tuple[subprocess.Popen[bytes], httpx.Client], client: redis.Redis, producer: Producer
) -> None:
    _, web = formation
    for job_id in [producer.enqueue(chat(str(n))) for n in range(200)]:
        producer.wait(job_id, 30)
    for _ in range(20):
        web.get("/metrics")
        web.get("/readyz")
    ours = len(client.client_list()) - 1  # without this test's own
    assert ours <= 11, client.client_list()


def self_signed(folder: Path) -> ssl.SSLContext:
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=heroku"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_herokus_self_signed_redis_is_believed_when_told_so(
    workshop: Workshop, producer: Producer, tmp_path: Path
) -> None:
    proxy = Proxy(Path(workshop.url.removeprefix("unix://")), self_signed(tmp_path))
    try:
        workshop.url = proxy.url
        workshop.routes(hot=[{"upstream": "a"}])
        workshop.policy()
        for command in (("failover", "status"), ("failover-worker", "--burst")):
            refused = workshop.run(*command)
            assert refused.returncode == 3
            assert "REDIS_TLS_VERIFY=false" in refused.stderr
        accepted = workshop.run("failover", "submit", "--prompt", "hi", REDIS_TLS_VERIFY="false")
        assert accepted.returncode == 0, accepted.stderr
        worked = workshop.run("failover-worker", "--burst", REDIS_TLS_VERIFY="false")
        assert worked.returncode == 0, worked.stderr
        assert producer.fetch(accepted.stdout.strip()).status is JobStatus.DONE
    finally:
        proxy.close()


def findings(workshop: Workshop, *options: str, **environment: str) -> tuple[int, dict[str, str]]:
    done = workshop.run("failover", "doctor", "--json", *options, **environment)
    told: dict[str, str] = {}
    for finding in json.loads(done.stdout):
        worst = told.get(finding["about"], "ok")
        told[finding["about"]] = max(worst, finding["level"], key=["ok", "warn", "fail"].index)
    return done.returncode, told


def test_the_doctor_finds_nothing_wrong_where_nothing_is(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy()
    oncall = Path(workshop.environment["POLICIES_DIR"]) / "oncall.yaml"
    oncall.write_text("on_call: [{name: Kira}]")
    workshop.worker()
    code, told = findings(workshop, FAILOVER_API_TOKEN="x", SLACK_WEBHOOK_URL="https://hooks.slack.example/x")
    assert code == 0
    assert set(told.values()) == {"ok"}
    oncall.write_text("on_call: [{name: Kira, hours: 8-20}]")
    code, told = findings(workshop, FAILOVER_API_TOKEN="x")
    assert (code, told["people"]) == (2, "fail")
    assert {
        "policies",
        "routes",
        "web",
        "redis",
        "connections",
        "clock",
        "workers",
        "route a/a-1",
        "route b/b-1",
    } <= set(told)
    assert workshop.providers.account("a")["answered"] == 0


def test_the_doctor_tells_what_is_wrong_and_the_release_phase_stops_for_it(workshop: Workshop, tmp_path: Path) -> None:
    workshop.routes(
        hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}, {"upstream": "b", "baseUrl": "http://127.0.0.1:1/v1"}]
    )
    workshop.policy()
    workshop.providers.behave("a", keys=["good"])
    code, told = findings(workshop, A_KEY="bad", FAILOVER_API_TOKEN="x")
    assert (code, told["route a/a-1"], told["route b/b-1"], told["workers"]) == (3, "fail", "fail", "warn")
    workshop.providers.behave("a", keys=["bad"])
    code, told = findings(workshop, A_KEY="bad", FAILOVER_API_TOKEN="x")
    assert (code, told["route a/a-1"], told["route b/b-1"]) == (0, "ok", "warn")  # others serve
    workshop.providers.behave("a", keys=["good"])
    assert findings(workshop, "--deploy", A_KEY="bad", FAILOVER_API_TOKEN="x")[0] == 0  # no provider stops a deploy
    assert findings(workshop, "--deploy", A_KEY="bad")[0] == 2
    assert findings(workshop, "--deploy", A_KEY="bad", FAILOVER_API_TOKEN="x", REDIS_URL="redis://127.0.0.1:1")[0] == 3
    (tmp_path / "unsafe").mkdir()
    server = embedded.start_server(tmp_path / "unsafe", {"appendonly": "no", "maxmemory-policy": "allkeys-lru"})
    try:
        unsafe = {
            "REDIS_URL": f"unix://{embedded.socket_path(tmp_path / 'unsafe')}",
            "A_KEY": "x",
            "FAILOVER_API_TOKEN": "x",
        }
        assert findings(workshop, "--deploy", **unsafe)[0] == 3
        assert findings(workshop, "--deploy", **unsafe, ALLOW_UNSAFE_REDIS="true")[0] == 0
    finally:
        server.kill()
        server.wait()
    assert "good" not in workshop.run("failover", "doctor", A_KEY="good").stdout
