"""A position that was copied from the screen goes into every command that takes one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import command, environment
from tests.tui.conftest import DEMO
from workbench.cli.main import main
from workbench.trace.reader import open_trace
from workbench.tui import commands
from workbench.tui.layout import Settings
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline

FORMS = ("50%", "1.2M", "access:17", "bookmark:here", "start", "end", "12,345")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(shutil.copy(DEMO, tmp_path / "demo.wbt"))


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_the_same_place_everywhere(
    path: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_trace(path) as trace:
        session = Session(trace, lambda name, failed: Inline(failed))
        session.start()
        view = View(session, Settings({}))
        copied: list[str] = []
        view.copied = copied.append
        session.go(777_777)
        commands.run(view, "bookmark here")
        commands.run(view, f"go {form}")
        view.copy_address()
        (address,) = copied
        at = session.icount
        later = session.log.row_at(at)
        expected = session.log.icount(later) if later < session.log.rows else None
    assert address == f"--at {at}"
    for place in (form, address.removeprefix("--at ")):
        found = said(capsys, "inspect", path, "cpu", "--at", place)
        assert f"instruction {at:,}" in found
        found = said(capsys, "log", path, "--at", place)
        lines = found.splitlines()
        assert len(lines) <= 20
        first = int(lines[0].split()[0].replace(",", "")) if lines else None
        assert first == expected
        assert found == said(capsys, "log", path, "--from", place, "--limit", "20")
    pytest.importorskip("drgn")
    assert said(capsys, "drgn", path, *address.split(), "-c",
                "print(machine.clock.icount)") == f"{at}\n"  # fmt: skip


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_begins_and_goes_there(path: str) -> None:
    gdb = ("-batch", "-ex", "monitor when", "-ex", "monitor seek 50%", "-ex", "monitor when")
    done = subprocess.run(
        [*command(False), "gdb", path, "--at", "access:17", "--symbols", "none", "--", *gdb],
        env=environment(), capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    counts = re.findall(r"instruction ([\d,]+), ", done.stdout + done.stderr)
    with open_trace(path) as trace:
        expected = [trace.accesses["icount"][17].as_py(), trace.icount // 2]
    assert [int(count.replace(",", "")) for count in (counts[0], counts[-1])] == expected
