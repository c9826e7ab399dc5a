"""`workbench diff`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

RECORD = ("record", "--kernel", "vmlinuz", "-q", "--seed", "1", "--rtc", "2026-01-01T00:00:00")


def test_diff(workbench: Run, kernel: str, tmp_path: Path) -> None:
    for name, line in (("a.wbt", "x"), ("same.wbt", "x"), ("b.wbt", "y")):
        assert workbench(*RECORD, "-o", name, "--append", line, fake=True).returncode == 0
    done = workbench("diff", "a.wbt", "same.wbt")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("equal: ")
    done = workbench("diff", "a.wbt", "b.wbt")
    assert (done.returncode, done.stderr) == (1, "")
    assert "@@ A 0-" in done.stdout
    assert "com1 +0x0 <- 0x" in done.stdout
    assert "the runs were given different things: command line" in done.stdout
    assert "@@" not in workbench("diff", "a.wbt", "b.wbt", "--summary").stdout
    quiet = workbench("diff", "a.wbt", "b.wbt", "-q")
    assert (quiet.returncode, quiet.stdout) == (1, "")
    (tmp_path / "System.map").write_text("ffffffff81000000 T start\n")
    named = ("--requests", "--symbol-file", "System.map")
    assert "start+0x" in workbench("diff", "a.wbt", "b.wbt", *named).stdout
    lines = json.loads(workbench("diff", "a.wbt", "b.wbt", "--json", *named).stdout)["hunks"][0]
    sides = [side for line in lines for side in (line["a"], line["b"]) if side is not None]
    assert {side["function"].partition("+")[0] for side in sides} == {"start"}
    assert {side["request"] for side in sides} == {None}
    found = json.loads(workbench("diff", "a.wbt", "b.wbt", "--json").stdout)
    assert not found["equal"]
    assert found["different_inputs"] == ["command line"]
    lines = [line for hunk in found["hunks"] for line in hunk if line["mark"] != "="]
    only_a = sum(line["mark"] == "<" for line in lines)
    assert only_a == sum(register["only_a"] for register in found["registers"])
    assert found["accesses_a"] - found["matching"] == sum(line["a"] is not None for line in lines)


def test_the_status_of_trouble_is_two(workbench: Run, kernel: str) -> None:
    for arguments in (("diff", "a", "b"), ("diff", "vmlinuz", "vmlinuz"), ("diff", "a")):
        done = workbench(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("workbench: ")
        assert done.stderr.count("\n") == 1
