"""The sixteen faults of `make bench-faults`, each by a whole worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.faults import ROWS, Row, run
from ops.simulators.provider import Control
from producer.policy import Policies


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_fault_ends_as_it_should(
    row: Row, url: str, providers: Control, tmp_path: Path, policies: Policies
) -> None:
    assert run(row, url, providers, tmp_path, policies).wrong == []
