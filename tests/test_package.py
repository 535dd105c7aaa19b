"""What is published: wheel and sdist, installed into an empty environment; and the image, as far as no Docker is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.documents import ROOT

pytestmark = pytest.mark.server  # processes of its own


def built(source: Path, target: str, folder: Path) -> Path:
    """The wheel or sdist of a source folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    (found,) = folder.iterdir()
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel, without the list of their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an empty environment with the wheel. Its dependencies are those of this one: no index is asked."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = str(place / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, capture_output=True, check=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # a path alone: no .pth there is read
    return place / "bin"


def ran(installed: Path, folder: Path, *command: str, **environment: str) -> str:
    inherited = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=folder,
        env={**inherited, "PATH": f"{installed}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    where = ran(installed, tmp_path, "python", "-c", "import failover_worker, ops; print(ops.__file__)")
    assert where.startswith(str(installed.parent))
    for command in (["failover"], ["failover-worker"], ["python", "-m", "failover_worker"]):
        assert "Usage:" in ran(installed, tmp_path, *command, "--help")
    told = ran(installed, tmp_path, "failover", "init", OPENROUTER_API_KEY="sk-or-test-0123456789")
    assert told.splitlines()[-2:] == ["  failover submit 'Say hello' --wait", "  failover up"]
    assert {path.name for path in tmp_path.iterdir()} == {".env", "policies", "routes.json"}
    assert "brief_delay" in ran(installed, tmp_path, "failover", "messages", "list")


def test_the_demo_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert json.loads(ran(installed, tmp_path, "failover", "demo", "--json"))["passed"] is True


def test_the_wheel_has_every_file_of_its_packages(wheel: Path) -> None:
    packed = contents(wheel)
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    ours = {name for name in kept if name.partition("/")[0] in ("producer", "worker", "ops", "failover_worker")}
    ours |= {f"producer/packaged/{name}" for name in kept if name.startswith("policies/") or name == "routes.json"}
    assert ours - packed.keys() == set()


def test_a_wheel_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(built(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("failover_worker-*")
    assert contents(built(source, "wheel", tmp_path / "wheel")) == contents(wheel)


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile: (instruction, its words), with the arguments filled in."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, words = line.strip().partition(" ")
        if name == "ARG":
            key, _, arguments[key] = words.partition("=")
        elif name:
            yield name, re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], words.strip())


def copied() -> list[str]:
    """What the image takes from this folder."""
    return [
        word
        for name, words in instructions()
        if name == "COPY" and "--from" not in words
        for word in words.split()[:-1]
    ]


def test_the_image_is_of_an_exact_base_has_no_root_and_says_whether_it_is_healthy() -> None:
    steps = list(instructions())
    bases = [words.split(" AS ")[0] for name, words in steps if name == "FROM"]
    assert len(bases) == 2  # what builds does not stay
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z-]+(@sha256:[0-9a-f]{64})?", base) for base in bases)
    last = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    final = dict(steps[last:])
    assert int(final["USER"]) > 0
    assert final["CMD"].startswith("[") and "/healthz" in final["HEALTHCHECK"]
    assert not {name for name, _ in steps} & {"ADD", "ENTRYPOINT", "ONBUILD"}
    assert not re.search(r"curl|wget|_KEY|TOKEN|SECRET", " ".join(words for _, words in steps))


def test_the_image_copies_what_the_wheel_needs_and_nothing_else_can_slip_in(wheel: Path, tmp_path: Path) -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(allowed) == sorted(copied())
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    for name in copied():
        to = tmp_path / "src" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to)
    assert contents(built(tmp_path / "src", "wheel", tmp_path / "dist")) == contents(wheel)


def test_the_health_check_of_the_image_asks_whether_the_web_process_serves(web: httpx.Client) -> None:
    check = json.loads(dict(instructions())["HEALTHCHECK"].partition("CMD ")[2])
    for port, code in ((web.base_url.port, 0), (1, 1)):
        done = subprocess.run(check, env={**os.environ, "PORT": str(port)}, capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_compose_keeps_the_jobs_and_gives_drains_their_time() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    redis, web, worker = (compose["services"][name] for name in ("redis", "web", "worker"))
    assert "--appendonly yes" in redis["command"] and "--maxmemory-policy noeviction" in redis["command"]
    assert redis["volumes"] == ["redis:/data"] and "redis" in compose["volumes"]
    assert re.fullmatch(r"valkey/valkey:\d+\.\d+\.\d+-alpine", redis["image"])
    drain = int(re.findall(r"--drain-seconds (\d+)", worker["command"])[0])
    assert drain + 4 <= int(worker["stop_grace_period"].removesuffix("s"))
    assert int(web["stop_grace_period"].removesuffix("s")) >= 29
    for service in (web, worker):
        assert service["environment"]["REDIS_URL"].startswith("redis://redis:")
        assert service["env_file"] == ".env"
        homes = {target.split(":")[1] for target in service["volumes"]}
        assert homes == {"/home/failover/routes.json", "/home/failover/policies"}
    assert web["ports"] == ["127.0.0.1:8000:8000"]
