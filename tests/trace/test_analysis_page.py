"""`docs/analysis.md` does what it says: its commands and its Python run, with the output shown."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "analysis.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)

for name in ("duckdb", "polars", "pandas"):
    pytest.importorskip(name)


def run_command(line: str, folder: Path) -> str:
    words = shlex.split(line.removeprefix("$ "))
    assert words[0] == "workbench"
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def run_python(code: str, names: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102  # our own page
    return out.getvalue()


def outputs(folder: Path) -> list[tuple[str, str, str]]:
    """Run every block in `folder`: its code, its output, and the output in the page."""
    (folder / "traces").symlink_to(ROOT / "traces")
    names: dict[str, Any] = {}
    found = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for kind, body, shown in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if kind == "python":
                out = run_python(body, names)
            else:
                out = run_command(body.strip(), folder)
            found.append((body, out, shown))
    finally:
        os.chdir(before)
    return found


def plain(text: str) -> str:
    """Without the size of a report, most of which is Bokeh's script."""
    return re.sub(r"report.html: [0-9.]+ MB", "report.html", text)


def test_the_walk_through(tmp_path: Path) -> None:
    found = outputs(tmp_path)
    assert len(found) > 20
    for code, out, shown in found:
        assert plain(out) == plain(shown), code
