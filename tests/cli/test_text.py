"""Tables and bars on terminals of any width."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workbench.cli import text
from workbench.trace.reader import Trace

COLUMNS = ("device", "reads", "detail", "")
ROWS = [("config-address", "1,234,567,890,123", "word " * 12, "####"), ("pit", "1", "", "#")]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_numbers_and_names_are_never_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "plain", lambda stream: False)
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    text.print_table("title", COLUMNS, ROWS, out)
    shown = out.getvalue()
    for cell in ("config-address", "1,234,567,890,123", "reads"):
        assert cell in shown
    assert shown.count("word") == 12
    assert "…" not in shown
    assert ("####" in shown) == (width >= 80)


def test_a_bar_appears_when_reading_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(text, "_PATIENCE_S", -1)
    trace: Any = SimpleNamespace(watch=None)
    with text.reading(cast(Trace, trace), "accesses"):
        trace.watch(0.25)
        trace.watch(0.5)
    assert trace.watch is None
    assert "accesses" in err.getvalue()
    monkeypatch.setattr(text, "_PATIENCE_S", 1000)
    before = err.getvalue()
    with text.reading(cast(Trace, trace), "quick"):
        trace.watch(0.5)
    assert "quick" not in err.getvalue()[len(before) :]
