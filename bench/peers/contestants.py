"""Who takes part: how each one's queue is filled, and how its worker is started."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = {  # environment -> what is in it; arq wants an older redis-py than the others
    ROOT / ".venv-peers": HERE / "requirements.txt",
    ROOT / ".venv-peers-arq": HERE / "requirements-arq.txt",
}
BULLMQ = HERE / "bullmq"


@dataclass(frozen=True)
class Contestant:
    """`enqueue`: the command that fills the queue; the number of jobs comes after it. `work`: the worker's command. `least`: it
    does one job at a time, so it gets so many jobs and no more."""

    name: str
    enqueue: tuple[str, ...]
    work: tuple[str, ...]
    least: int | None = None


def contestants(concurrency: int, jobs: int) -> list[Contestant]:
    """All of this machine. BullMQ is left out where there is no node."""
    (peers, with_arq), ours = (folder / "bin" for folder in REQUIREMENTS), Path(sys.executable).parent
    apps, slots = "bench.peers.apps", str(concurrency)

    def app(name: str, environment: Path = peers) -> tuple[str, ...]:
        return (str(environment / "python"), "-m", f"{apps}.{name}")

    found = [
        Contestant("bare aiohttp loop", (), (*app("floor"), str(jobs))),
        Contestant(
            "failover-worker",
            (sys.executable, "-m", f"{apps}.ours"),
            (str(ours / "failover-worker"), "--concurrency", slots),
        ),
        Contestant(
            "taskiq",
            app("taskiq_app"),
            (str(peers / "taskiq"), "worker", f"{apps}.taskiq_app:broker", "--workers=1", f"--max-async-tasks={slots}"),
        ),
        Contestant("saq", app("saq_app"), (str(peers / "saq"), f"{apps}.saq_app.settings")),
        Contestant("arq", app("arq_app", with_arq), (str(with_arq / "arq"), f"{apps}.arq_app.WorkerSettings")),
        Contestant(
            "dramatiq (gevent)",
            app("dramatiq_app"),
            (str(peers / "dramatiq-gevent"), f"{apps}.dramatiq_app", "--processes=1", f"--threads={slots}"),
        ),
        Contestant(
            "celery (gevent)",
            app("celery_app"),
            (str(peers / "celery"), "-A", f"{apps}.celery_app", "worker", "-P", "gevent", "-c", slots),
        ),
        Contestant("rq", app("rq_app"), (str(peers / "rq"), "worker", "stock", "--url", "{redis}"), least=30),
    ]
    if (BULLMQ / "node_modules").is_dir():
        script = str(BULLMQ / "app.mjs")
        found.append(Contestant("BullMQ", ("node", script, "enqueue"), ("node", script, "work")))
    return found


def install() -> None:
    """The peers, in environments of their own, once."""
    for folder, requirements in REQUIREMENTS.items():
        install_environment(folder, requirements)
    if not (BULLMQ / "node_modules").is_dir() and _has("npm"):
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=BULLMQ, check=False)


def install_environment(folder: Path, requirements: Path) -> None:
    """An environment with these packages; nothing to do if it is there already. Raises CalledProcessError."""
    ready = folder / ".ready"
    if ready.exists() and ready.stat().st_mtime >= requirements.stat().st_mtime:
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(requirements)], check=True)
    ready.touch()


def _has(command: str) -> bool:
    return any((Path(folder) / command).exists() for folder in os.get_exec_path())
