"""Imports `producer`, `worker` and `ops` from beside this package, whatever modules of those names stand on PYTHONPATH."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("producer", "worker", "ops")
HOME = Path(__file__).resolve().parent.parent


class OwnFinder(MetaPathFinder):
    """Finds the three packages in `HOME` only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [str(HOME)]) if fullname in NAMES else None


def claim_names() -> None:
    """From now on the three names are ours: for our own commands, which nobody else's code runs in."""
    for name in _loaded():
        if not _is_ours(name):
            del sys.modules[name]
    sys.meta_path.insert(0, OwnFinder())


@contextmanager
def imported_by_themselves() -> Iterator[None]:
    """Within it the three names are ours. After it an application's modules of these names are found as before."""
    foreign = {name: sys.modules.pop(name) for name in _loaded() if not _is_ours(name)}
    finder = OwnFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in _loaded():
            root = name.partition(".")[0]
            if root in foreign or _stands_before_ours(root):
                del sys.modules[name]  # ours goes on: what was imported keeps what it uses
        sys.modules.update(foreign)


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in NAMES]


def _is_ours(name: str) -> bool:
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and HOME in Path(file).resolve().parents and Path(file).resolve().parent != HOME


def _stands_before_ours(root: str) -> bool:
    """Whether an application has a module of this name, which an import would find first."""
    spec = PathFinder.find_spec(root, sys.path)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() != HOME / root / "__init__.py"
