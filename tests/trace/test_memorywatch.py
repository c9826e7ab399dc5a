"""Watchpoints on memory hear of devices where their addresses are mapped at that moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trace.dma_guest import LINEAR, record
from workbench.core.layout import WATCH_READ, WATCH_WRITE
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.memorywatch import MemoryWatch
from workbench.trace.reader import open_trace
from workbench.trace.timeline import Timeline

WROTE, READ = ("written by piix3_ide by DMA for ide0/{}", "read by piix3_ide by DMA for ide0/{}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dma") / "dma.wbt"
    record(path)
    return path


@pytest.fixture
def timeline(made: Path) -> Iterator[Timeline]:
    with open_trace(str(made)) as trace:
        yield Timeline(trace)


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        (WATCH_WRITE, [WROTE.format(1), WROTE.format(4)]),
        (WATCH_READ, [READ.format(5)]),
        (WATCH_READ | WATCH_WRITE, [WROTE.format(1), WROTE.format(4), READ.format(5)]),
    ],
)
def test_transfers_to_the_page_that_is_mapped(
    timeline: Timeline, kind: int, want: list[str]
) -> None:
    """Five transfers, two of them to a page that is not mapped there at that moment."""
    end = timeline.trace.end
    timeline.watches = [(LINEAR + 4, LINEAR + 8, kind)]
    forward = []
    while (found := timeline.go()).kind == "watch":
        forward.append((found.text, timeline.icount))
    assert found.kind == "end"
    assert [text for text, _ in forward] == want
    assert end is not None
    assert timeline.machine.digest().hex() == end.digest
    back = []
    while (found := timeline.go_back()).kind == "watch":
        back.append((found.text, timeline.icount + 1))
    assert found.kind == "begin"
    assert back == forward[::-1]


def test_the_stub_says_that_it_was_a_device(timeline: Timeline) -> None:
    stub = Stub(ReplayTarget(timeline))
    stub.connected()
    stub.framing.acks = False
    for text in (b"$Z3,400000,8#", b"$c#"):
        body = text[1:-1]
        stub.receive(text + b"%02x" % (sum(body) & 0xFF))
    stub.run(lambda: False)
    said = stub.framing.take()
    assert READ.format(5).encode().hex().encode() in said
    assert b"rwatch:400000;" in said


def test_a_range_may_lie_in_several_places_or_nowhere(timeline: Timeline) -> None:
    timeline.seek(timeline.end_icount)
    machine = timeline.machine
    watch = MemoryWatch(0, LINEAR - 0x1000, LINEAR + 0x800_0000, WATCH_WRITE)
    assert watch.hears(machine, LINEAR - 1, 1, True)
    assert watch.hears(machine, 0x301FFF, 1, True)
    assert not watch.hears(machine, 0x301000, 1, False)
    assert not watch.hears(machine, 0x300FFF, 1, True)
    assert not watch.hears(machine, 0x302000, 0x1000, True)
    machine.memory.write(0x201004, b"\x03\x20\x30\0")
    assert watch.hears(machine, 0x302000, 1, True)
