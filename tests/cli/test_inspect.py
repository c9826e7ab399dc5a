"""`workbench inspect` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gdbstub.conftest import demo_path
from workbench.cli.main import main

__all__ = ["demo_path"]


def test_the_list_and_a_page(demo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(demo_path)]) == 0
    assert {"irq", "cpu", "com1"} <= set(capsys.readouterr().out.split())
    assert main(["inspect", str(demo_path), "cpu", "--at", "20000"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("instruction 20,000\nprocessor\n")
    assert "\x1b" not in shown
    assert main(["inspect", str(demo_path), "--at", "20000", "cpu"]) == 0
    assert capsys.readouterr().out == shown


def test_json_and_changes(demo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(demo_path), "timers", "--at", "50%", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["name"] == "timers"
    assert page["icount"] > 0
    assert any(table["title"] == "deadlines" for table in page["tables"])
    assert main(["inspect", str(demo_path), "cpu", "--at", "1", "--since", "start"]) == 0
    assert "*  rip" in capsys.readouterr().out


@pytest.mark.parametrize("more", [["nothing"], ["cpu", "--at", "nowhere"], ["cpu", "--rows", "0"]])
def test_what_is_wrong(
    demo_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(demo_path), *more]) == 2
    assert capsys.readouterr().err.startswith("workbench: expected")
