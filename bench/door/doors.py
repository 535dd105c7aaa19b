"""The doors: `failover serve` with a worker behind it, and LiteLLM's proxy, each on one core."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from bench.door.load import TOKEN
from bench.peers.compare import WORKERS_CORE, Place, cpu_seconds, rss_mb, tree
from bench.peers.contestants import HERE, ROOT, install_environment
from bench.throughput import BIN, free_port, process, wait_until

OURS, LITELLM = "failover serve", "LiteLLM's proxy"
ENVIRONMENT, REQUIREMENTS = ROOT / ".venv-peers-litellm", HERE / "requirements-litellm.txt"
START_SECONDS = 90.0


@dataclass(frozen=True)
class Door:
    """A running one. `parts`: its processes by name; the first one takes the requests."""

    url: str
    parts: Mapping[str, int]

    def cpu(self) -> dict[str, float]:
        """Seconds so far, by part."""
        return {name: cpu_seconds(pid) for name, pid in self.parts.items()}

    def rss(self) -> dict[str, float]:
        """MB now, by part."""
        return {name: sum(map(rss_mb, tree(pid))) for name, pid in self.parts.items()}


Open = Callable[[Place], contextlib.AbstractContextManager[Door]]


@contextlib.contextmanager
def ours(place: Place) -> Iterator[Door]:
    """The policies that a fresh checkout has, but for the rate of the one tenant."""
    folder, port = place.log.parent, free_port()
    policies = shutil.copytree(ROOT / "policies", folder / "policies", dirs_exist_ok=True)
    rate = {"jobs_per_minute": 600_000, "burst": 10_000}
    (policies / "tenants.yaml").write_text(json.dumps({"version": 1, "tenants": {"default": rate}}))
    environment = {
        **place.environment,
        "POLICIES_DIR": str(policies),
        "FAILOVER_API_TOKEN": TOKEN,
        "PORT": str(port),
    }
    worker = [str(BIN / "failover-worker"), "--concurrency", place.environment["CONCURRENCY"]]
    with (
        process([str(BIN / "failover"), "serve"], environment, folder / "web.log", WORKERS_CORE) as web,
        process(worker, environment, folder / "worker.log", WORKERS_CORE) as works,
    ):
        yield _opened(f"http://127.0.0.1:{port}/v1", {"web": web.pid, "worker": works.pid})


@contextlib.contextmanager
def litellm(place: Place) -> Iterator[Door]:
    """One process, with the settings that its documentation wants for production, and no database."""
    folder, port = place.log.parent, free_port()
    route = {"model": "openai/gpt-4o-mini", "api_base": f"{place.provider_url}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": route}],
        "general_settings": {"master_key": TOKEN},
        "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600},
    }
    (folder / "litellm.yaml").write_text(json.dumps(settings))
    environment = {
        **place.environment,
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # without it each start reads the prices of all models from GitHub
    }
    command = [
        *(str(ENVIRONMENT / "bin" / "litellm"), "--config", str(folder / "litellm.yaml")),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"),
    ]
    with process(command, environment, folder / "litellm.log", WORKERS_CORE) as web:
        yield _opened(f"http://127.0.0.1:{port}/v1", {"web": web.pid})


def doors(names: Collection[str]) -> dict[str, Open]:
    """Those of `names`, without LiteLLM's where it cannot be installed."""
    every: dict[str, Open] = {OURS: ours, LITELLM: litellm}
    if LITELLM in names:
        try:
            install_environment(ENVIRONMENT, REQUIREMENTS)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{LITELLM} cannot be installed here, so it is left out: {error}")
            del every[LITELLM]
    return {name: door for name, door in every.items() if name in names}


def _opened(base_url: str, parts: Mapping[str, int]) -> Door:
    wait_until(lambda: _serves(base_url), f"the start of {base_url}", START_SECONDS)
    return Door(f"{base_url}/chat/completions", parts)


def _serves(base_url: str) -> bool:
    request = urllib.request.Request(f"{base_url}/models", headers={"authorization": f"Bearer {TOKEN}"})  # noqa: S310 - it is ours
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False
