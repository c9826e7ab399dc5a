"""Runs the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(fake: bool) -> list[str]:
    module = "tests.cli.fake_workbench" if fake else "workbench"
    return [sys.executable, "-m", module]


def environment(**more: str) -> dict[str, str]:
    # A child does not see the parent's terminal, colours or path.
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS")}
    return {**base, "PYTHONPATH": str(ROOT), **more}


@pytest.fixture
def workbench(tmp_path: Path) -> Run:
    """Run `workbench` in an empty folder; with `fake=True` on the fake machine."""

    def run(
        *args: str, fake: bool = False, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(fake), *args],
            cwd=tmp_path,
            env=environment(**env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    """A file that the fake machine takes for a kernel."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel" * 100)
    return "vmlinuz"
