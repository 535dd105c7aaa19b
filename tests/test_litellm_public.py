"""`failover routes import` on configs in the shapes of public ones: what comes out, that it loads, and that no address in it is
wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.importers import job_types
from ops.importers.litellm import imported
from ops.reports.route_address import address_problem
from producer.errors import ConfigurationError
from worker.configuration import Configuration

ROWS = yaml.safe_load((Path(__file__).parent / "data" / "litellm_configs.yaml").read_text(encoding="utf-8"))
FIXED = ("provider", "model", "baseUrl", "apiKeyEnv")


def environment_of(routes: dict[str, Any], folder: Path) -> dict[str, str]:
    """A value for each variable of the map."""
    entries = [route for tier in ("hot", "warm") for route in routes.get(tier, ())]
    found = {name: "m" for route in entries for name in re.findall(r"\$\{(\w+)", route["model"])}
    found |= {name: "https://h.example.com" for route in entries for name in re.findall(r"\$\{(\w+)", route["baseUrl"])}
    found |= {route["apiKeyEnv"]: "k" for route in entries if route["apiKeyEnv"]}
    return found | {"ROUTES_FILE": str(folder / "routes.json"), "POLICIES_DIR": str(folder / "policies")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["about"][:50])
def test_a_public_config_imports_as_judged(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(row["config"], encoding="utf-8")
    if "refused" in row:
        with pytest.raises(ConfigurationError) as refused:
            imported(path)
        assert row["refused"] in str(refused.value)
        return
    found = imported(path)
    routes = [(tier, route) for tier in ("hot", "warm") for route in found.routes.get(tier, ())]
    assert [
        [tier, *(route[name] for name in FIXED), {name: value for name, value in route.items() if name not in FIXED}]
        for tier, route in routes
    ] == row["routes"]
    assert {name: each.pin for name, each in found.job_types.items()} == row["job_types"]
    assert sorted({who for whos in found.report.left_out.values() for who in whos}) == row["left_out"]

    (tmp_path / "routes.json").write_text(json.dumps(found.routes))
    written = {name: each.routing for name, each in found.job_types.items()}
    job_types.write(tmp_path / "policies", {"routing.yaml": written, "jobs.yaml": {key: {} for key in written}})
    loaded = Configuration.load(environment_of(found.routes, tmp_path))
    assert len(loaded.routes.routes) == len(routes) and not loaded.routes.left_out
    assert not [why for route in loaded.routes.routes if (why := address_problem(route))]
    pinned = {name for each in row["job_types"] for name in loaded.routing.of(each).pinned}
    assert pinned <= loaded.routes.names
