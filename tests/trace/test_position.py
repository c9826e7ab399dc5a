"""Positions as people write them, and bookmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gdbstub.conftest import demo_path
from workbench.errors import InputFileError, UsageError
from workbench.trace.bookmarks import Bookmarks
from workbench.trace.position import parse
from workbench.trace.reader import open_trace

__all__ = ["demo_path"]


def test_positions(demo_path: Path) -> None:
    with open_trace(demo_path) as trace:
        end = trace.icount
        counts = trace.accesses["icount"].to_pylist()
        expected = {
            "0": 0, "start": 0, "end": end, "12345": 12345, "12,345": 12345, "0x10": 16,
            "1k": 1000, "1.5k": 1500, "0.25M": 250_000, "2G": end, "99999999999": end,
            "0%": 0, "50%": end // 2, "100%": end, "12.5%": end * 125 // 1000,
            "access:0": counts[0], "access 10": counts[10], "access:1,000": counts[1000],
            f"access:{len(counts) - 1}": counts[-1], "bookmark:here": 77, " END ": end,
        }  # fmt: skip
        for text, icount in expected.items():
            assert parse(text, trace, {"here": 77}) == icount, text


@pytest.mark.parametrize(
    "text",
    [
        "", "-1", "1.5", "x", "101%", "5q", "access:", "access:-1", "access:99999999999",
        "access:1.5", "bookmark:nowhere", "request:ide0", "request:ide0/x", "request:ide0/9999",
        "1e9", "nan", "inf", "9" * 40, "access:" + "9" * 40, "²", "0x", "1:2",
    ],
)  # fmt: skip
def test_what_is_no_position(demo_path: Path, text: str) -> None:
    with open_trace(demo_path) as trace, pytest.raises(UsageError):
        parse(text, trace)


def test_bookmarks_are_kept_beside_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "boot.wbt"
    marks = Bookmarks(trace)
    marks.set("late", 900)
    marks.set("early", 5)
    marks.set("late", 800)
    assert Bookmarks(trace).places == {"early": 5, "late": 800}
    marks.drop("early")
    assert Bookmarks(trace).places == {"late": 800}
    for name in ("", "a b", "../x", "x" * 65):
        with pytest.raises(UsageError, match="expected a name"):
            marks.set(name, 1)
    with pytest.raises(UsageError, match="expected a bookmark"):
        marks.drop("early")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"a": -1}', b'{"a": "1"}', b'{"a b": 1}', b"\xff"]
)
def test_a_file_that_holds_no_bookmarks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.wbt.bookmarks").write_bytes(content)
    with pytest.raises(InputFileError, match="expected bookmarks"):
        Bookmarks(tmp_path / "t.wbt")
