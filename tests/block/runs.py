"""`workbench record` of a guest that uses a disk (disk_guest.S), as a process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from workbench.firmware.demo.build import assemble, available

__all__ = ["ENDLESS", "available", "guest", "helpers", "record", "start"]

ROOT = Path(__file__).parents[2]
ENDLESS = 1000


@functools.cache
def guest(sectors: int) -> bytes:
    return assemble(Path(__file__).parent / "disk_guest.S", {"SECTORS": sectors})


def start(folder: Path, *argv: str, **more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *argv], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def record(folder: Path, url: str, options: str = "", sectors: int = 3) -> list[str]:
    return ["record", "--kernel", f"guest{sectors}", "--drive", f"file={url}{options}",
            "--debug-exit", "-q", "-o", "run.wbt"]  # fmt: skip


def helpers(folder: Path) -> list[str]:
    """Command lines of programs that serve an image for a run of this test."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder / "tmp") in line:
            found.append(line)
    return found
