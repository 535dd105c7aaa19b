"""A wall clock that is moved at will, for this process and all that it starts: also Redis's TIME and its expiry."""

from __future__ import annotations

import atexit
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
CLOCK_FILE = "CLOCK_FILE"


def begin(seconds: int) -> None:
    """Start this program again with a clock that is moved by `seconds`; returns in the program that has it."""
    if CLOCK_FILE in os.environ:
        atexit.register(shutil.rmtree, Path(os.environ[CLOCK_FILE]).parent, ignore_errors=True)
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("a simulated year needs a C compiler for its clock: install gcc")
    folder = Path(tempfile.mkdtemp(prefix="failover-clock-"))
    library = folder / "simulated_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE)], check=True)
    clock = folder / "clock"
    clock.write_bytes(struct.pack("=q", seconds))
    environment = {**os.environ, "LD_PRELOAD": str(library), CLOCK_FILE: str(clock)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - this program itself


def advance(seconds: int) -> None:
    """Move the clock of every process that has it."""
    path = Path(os.environ[CLOCK_FILE])
    with path.open("r+b") as file:  # in place, because processes have it mapped
        (before,) = struct.unpack("=q", file.read(8))
        file.seek(0)
        file.write(struct.pack("=q", before + seconds))
