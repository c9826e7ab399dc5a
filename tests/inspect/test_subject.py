"""What rows of inspectors stand for: the bytes that they were made of, accesses, requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import inspect
from workbench.inspect.page import Page, pairs, render
from workbench.inspect.requests import last_requests
from workbench.inspect.subject import Accesses, Bytes, Request, Row, Subject, of_register
from workbench.trace.reader import Trace, open_trace
from workbench.trace.timeline import Timeline
from workbench.tui import language
from workbench.tui.structures import STRUCTURES

ROOT = Path(__file__).parents[2]
SECOND_NOTIFIED = 20_056


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline]:
    with open_trace(ROOT / "traces" / "v2-drivers.wbt") as trace:
        made = Timeline(trace)
        made.seek(SECOND_NOTIFIED)
        yield made


def subject(page: Page, title: str, name: str) -> Subject | None:
    """That of a row, by its first cell."""
    table = next(t for t in page.tables if t.title == title)
    return next(table.subject(n) for n, row in enumerate(table.rows) if row[0] == name)


def test_rings_are_where_the_rows_say(timeline: Timeline) -> None:
    page = inspect.capture(timeline.machine, "drive0")
    memory = timeline.machine.memory
    idx = subject(page, "queue 0 (requestq)", "available ring")
    assert idx == Bytes(0x103002, 2, "virtq_avail")
    table = next(t for t in page.tables if t.title.endswith("descriptor table"))
    assert table.rows
    for number, row in enumerate(table.rows):
        place = table.subject(number)
        assert isinstance(place, Bytes)
        address = int.from_bytes(memory.read(place.gpa, 8), "little")
        assert (place.structure, hex(address)) == ("virtq_desc", row[1])


def test_a_packed_ring_and_those_of_the_e1000(timeline: Timeline) -> None:
    timeline.seek(53_893_046)
    memory = timeline.machine.memory
    seen = set()
    for name in ("net0", "net1"):
        for table in inspect.capture(timeline.machine, name).tables:
            for number, row in enumerate(table.rows):
                place = table.subject(number)
                if isinstance(place, Bytes) and "address" in table.columns and row[1] != "-":
                    seen.add(place.structure)
                    address = int.from_bytes(memory.read(place.gpa, 8), "little")
                    assert hex(address) == row[table.columns.index("address")], table.title
    timeline.seek(SECOND_NOTIFIED)
    assert seen >= {"pvirtq_desc", "e1000_rx", "e1000_tx"}


def test_every_subject_can_be_asked_for(timeline: Timeline) -> None:
    kinds = set()
    for name in inspect.names(timeline.machine):
        for table in inspect.capture(timeline.machine, name).tables:
            assert not table.subjects or len(table.subjects) == len(table.rows)
            for found in table.subjects:
                kinds.add(type(found))
                if isinstance(found, Bytes):
                    assert not found.structure or found.structure in STRUCTURES
                elif isinstance(found, Accesses):
                    assert language.parse(found.filter, 1) is not None
    assert {Bytes, Accesses} <= kinds


def test_the_last_requests(timeline: Timeline) -> None:
    trace: Trace = timeline.trace
    page = inspect.capture(timeline.machine, "drive0", trace=trace)
    table = page.tables[-1]
    assert [row[0] for row in table.rows] == ["drive0/1"]
    assert table.subject(0) == Request("drive0/1", 21)
    everything = [r.name for r in last_requests(trace, 1 << 60)]
    assert len(everything) == 12
    assert [r.name for r in last_requests(trace, 1 << 60, count=5)] == everything[-5:]
    assert [r.name for r in last_requests(trace, 1 << 60, "net0", 2)] == ["net0/3", "net0/4"]
    (under_way,) = last_requests(trace, 20_000, "drive0")
    assert (under_way.name, under_way.ended) == ("drive0/1", -1)


def test_subjects_are_in_the_json_and_not_in_the_text() -> None:
    page = Page("x", "x", (pairs("t", [Row(("a", "1"), Bytes(0x10, 2, "prd")), ("b", "2")]),))
    (table,) = page.to_json()["tables"]
    prd = {"kind": "bytes", "gpa": 0x10, "length": 2, "structure": "prd"}
    assert table["subjects"] == [prd, None]
    assert "subjects" not in Page("x", "x", (pairs("t", [("a", "1")]),)).to_json()["tables"][0]
    assert "prd" not in inspect.plain(page)
    assert render(page) is not None


def test_a_register_is_that_of_its_device_alone() -> None:
    name, text = of_register("net0", "STATUS", config=True)
    assert name == "net0 cfg STATUS"
    assert " and cfg and " in text
    assert '"(nothing)"' in of_register("(nothing)", "+0x2e").filter
