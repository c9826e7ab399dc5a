"""Two traces compared: what matches, what is noise, which event differs first."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as api
from tests.trace.conftest import Make
from workbench.trace.compare import (
    Accesses,
    Alignment,
    Diff,
    Hashes,
    Row,
    different_inputs,
    first_difference,
)
from workbench.trace.header import End, Header
from workbench.trace.reader import open_trace
from workbench.trace.tables import ACCESS, CLOCK, DIGEST, INTERRUPT, Event
from workbench.trace.writer import TraceWriter

MACHINE = {"serial_ports": ["com1"], "nics": [{"name": "net0", "model": "e1000"}]}


def access(device: str, offset: int, value: int, write: bool = True, kind: str = "pio") -> Event:
    return (ACCESS, 0, 0x100, kind, device, offset, 4, write, value, 0x10, 1)


def at(events: list[Event]) -> list[Event]:
    """With counts that go on with each event but those that note the time."""
    before = accumulate((e[0] != DIGEST for e in events), initial=0)
    return [(e[0], 10 * n, *e[2:]) for n, e in zip(before, events, strict=False)]


def write(path: Path, events: list[Event], **header: Any) -> api.Trace:
    writer = TraceWriter(path, Header(machine=MACHINE, **header))
    writer.embed({}, Header(machine=MACHINE))
    writer.append(at(events), 10 * len(events))
    writer.close(End(10 * len(events), 1, len(events), "shutdown", 0, "", 0.1, ""))
    return api.open(path)


def compare(folder: Path, a: list[Event], b: list[Event], exact: bool = False) -> Diff:
    with write(folder / "a.wbt", a) as first, write(folder / "b.wbt", b) as second:
        return Diff(first, second, exact=exact)


def test_a_trace_equals_itself(make_trace: Make) -> None:
    with api.open(make_trace("a.wbt")) as a, api.open(make_trace("b.wbt")) as b:
        diff = Diff(a, b, exact=True)
        assert diff.equal
        assert list(diff.hunks(3)) == []
        assert diff.by_register() == []
        assert diff.a.rows == a.accesses.num_rows


def test_noise_is_not_compared(tmp_path: Path) -> None:
    def run(time: int, page: int, digit: str) -> list[Event]:
        return [
            access("pit", 0, time, write=False),
            access("net0", 0x3800, page << 12 | 0x10, kind="mmio"),
            access("com1", 0, ord(digit)),
            access("lapic", 0x390, time, write=False, kind="mmio"),
        ]

    a, b = run(77, 0x12345, "3"), run(99, 0x88888, "7")
    assert compare(tmp_path, a, b).equal
    assert compare(tmp_path, a, b, exact=True).same == 0
    b[1] = access("net0", 0x3800, 0x8888_8020, kind="mmio")
    b[2] = access("com1", 0, ord("x"))
    assert compare(tmp_path, a, b).same == 2


def test_hunks_and_counts(tmp_path: Path) -> None:
    a = [access("ide0", 1, n) for n in range(100)]
    b = list(a)
    b[50] = access("ide0", 1, 0xBAD)
    b[20:20] = [access("ide0", 7, 0xEC)]
    del b[91]
    diff = compare(tmp_path, a, b)
    assert not diff.equal
    assert (diff.same, diff.a.rows, diff.b.rows) == (98, 100, 100)
    hunks = list(diff.hunks(2))
    assert hunks[0] == [
        Row("=", 18, 18), Row("=", 19, 19), Row(">", None, 20), Row("=", 20, 21), Row("=", 21, 22)
    ]  # fmt: skip
    assert [r for r in hunks[1] if r.mark != "="] == [Row("|", 50, 51)]
    assert [r for r in hunks[2] if r.mark != "="] == [Row("<", 90, None)]
    assert [len(h) for h in diff.hunks(0)] == [1, 1, 1]
    # With more context than there is between them, all in one; every row of both sides once.
    (whole,) = diff.hunks(1000)
    assert [r.a for r in whole if r.a is not None] == list(range(100))
    assert [r.b for r in whole if r.b is not None] == list(range(100))
    counts = [(c.device, c.offset, c.write, c[-3:]) for c in diff.by_register()]
    assert counts == [("ide0", 1, True, (1, 0, 1)), ("ide0", 7, True, (0, 1, 0))]


def test_registers_are_named_by_what_was_selected(tmp_path: Path) -> None:
    def uart(offset: int, value: int) -> Event:
        return (ACCESS, 0, 0x100, "pio", "com1", offset, 1, True, value, 0x3F8 + offset, 1)

    a = [uart(0, 65), uart(3, 0x83), uart(0, 1), uart(3, 0x03), uart(0, 66), access("who", 4, 1)]
    diff = compare(tmp_path, a, a)
    names = [diff.a.meaning(row).name for row in range(6)]
    assert names == ["THR", "LCR", "DLL", "LCR", "THR", "+0x4"]
    # In any order, and with rows left out.
    for row in (2, 4, 0, 2, 2):
        assert diff.b.meaning(row).name == names[row]


def test_the_first_event_that_differs(tmp_path: Path) -> None:
    a = [access("ide0", 1, n) for n in range(10)]
    interrupt: Event = (INTERRUPT, 0, 0x100, "interrupt", 0x30, 0, 0)
    b = [*a[:6], interrupt, *a[6:]]
    with write(tmp_path / "a", a) as one, write(tmp_path / "b", b) as other:
        assert different_inputs(one, other) == []
        found = first_difference(one, other)
        assert first_difference(one, one) is None
    assert found is not None
    assert (found.seq, found.a, found.b) == (6, at(a)[6], at(b)[6])
    with write(tmp_path / "a", a) as one, write(tmp_path / "b", a[:-1]) as other:
        found = first_difference(one, other)
    assert found is not None
    assert (found.seq, found.a, found.b) == (9, at(a)[9], None)


def test_inputs_that_differ_are_named(make_trace: Make) -> None:
    with api.open(make_trace("a.wbt")) as a, api.open(make_trace("b.wbt", seed=2)) as b:
        assert different_inputs(a, b)[0] == "machine (seed)"
        assert not Diff(a, b).equal


def test_hashes_alone_align_alike() -> None:
    demo = Path(__file__).parents[2] / "traces" / "v1-demo.wbt"
    told: list[float] = []
    with open_trace(demo) as trace:
        whole, hashes = Accesses(trace), Hashes(trace, progress=told.append)
        assert (whole.words == hashes.words).all()
        assert (whole.registers == hashes.registers).all()
        other = Hashes(trace)
        # One is missing, one is another, and then one more register.
        other.words = np.delete(other.words, 700)
        other.registers = np.delete(other.registers, 700)
        other.words[100] += np.uint64(1)
        other.words[900] += np.uint64(1)
        other.registers[900] += np.uint64(1)
        other.rows -= 1
        found = Alignment(hashes, other, told.append)
        gaps = list(found.gaps())
        assert gaps == [(100, 101, 100, 101), (700, 701, 700, 700), (901, 902, 900, 901)]
        assert [list(found.stretches(gap)) for gap in gaps] == [
            [("|", 100, 100, 1)],
            [("<", 700, 700, 1)],
            [("<", 901, 900, 1), (">", 902, 900, 1)],
        ]
        assert all(0 <= share <= 1 for share in told)
        with pytest.raises(ZeroDivisionError):
            Alignment(hashes, other, lambda share: 1 / 0)


def test_when_the_recorder_noted_the_time_is_no_difference(tmp_path: Path) -> None:
    def note(n: int) -> Event:
        return (DIGEST, 0, 1000 * n, CLOCK, b"")

    a = [access("ide0", 1, n) for n in range(10)]
    b = [*a[:5], access("ide0", 1, 77), *a[6:]]
    noted, often = [*a[:3], note(3), *a[3:]], [*b[:1], note(1), *b[1:2], note(2), *b[2:]]
    with write(tmp_path / "a", a) as one, write(tmp_path / "n", noted) as other:
        assert first_difference(one, other) is None
        assert first_difference(other, one) is None
    with write(tmp_path / "n", noted) as one, write(tmp_path / "b", often) as other:
        found = first_difference(one, other)
    assert found is not None
    assert (found.seq, found.a, found.b) == (6, at(noted)[6], at(often)[7])
