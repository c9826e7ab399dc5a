"""Checkpoints in a trace: a trace that is opened again is anywhere at once."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

import pytest

from tests.gdbstub.conftest import demo_path
from workbench.cli.main import main
from workbench.core.build import source_key
from workbench.core.machine import Machine, Stop
from workbench.errors import FormatError
from workbench.trace import stored
from workbench.trace.container import CHECKPOINT, CHECKPOINTS, CHUNK, PAGES, encode_chunk
from workbench.trace.enrich import add_checkpoints
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.stored import from_plain, to_plain
from workbench.trace.timeline import Timeline

__all__ = ["demo_path"]
EVERY = 300_000


@pytest.fixture(scope="session")
def enriched(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "demo.wbt"
    shutil.copy(demo_path, path)
    with open_trace(path) as trace:
        assert add_checkpoints(trace, EVERY) == (trace.icount - 1) // EVERY
    return path


def straight(path: Path, icount: int) -> bytes:
    with open_trace(path) as trace:
        timeline = Timeline(trace)
        timeline.machine.run(icount)
        return timeline.machine.digest()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instructions of each run of a machine."""
    found: list[int] = []
    real = Machine.run

    def run(machine: Machine, until: int) -> Stop:
        before = machine.clock.icount
        stop = real(machine, until)
        found.append(machine.clock.icount - before)
        return stop

    monkeypatch.setattr(Machine, "run", run)
    return found


def test_a_seek_runs_only_from_the_nearest_one(
    demo_path: Path, enriched: Path, spans: list[int]
) -> None:
    with open_trace(enriched) as trace:
        timeline = Timeline(trace)
        assert timeline.checkpoints == [0, *range(EVERY, trace.icount, EVERY)]
        last = timeline.checkpoints[-1]
        for icount in (last + 77, EVERY * 2 + 5, last, EVERY - 3, trace.icount - 1):
            spans.clear()
            timeline.seek(icount)
            assert sum(spans) < EVERY
            assert timeline.icount == icount
            assert timeline.machine.digest() == straight(demo_path, icount)
        assert timeline.kept.stored is not None
        assert timeline.kept.problem == ""
        assert timeline.go().kind == "end"
        assert trace.end is not None
        assert timeline.machine.digest().hex() == trace.end.digest


def test_backwards_from_the_end(demo_path: Path, enriched: Path, spans: list[int]) -> None:
    with open_trace(enriched) as trace:
        timeline = Timeline(trace, budget_bytes=3 << 20)
        timeline.seek(trace.icount - 1000)
        timeline.breakpoints = {timeline.machine.cpu.get("rip")}
        spans.clear()
        found = timeline.go_back()
        assert found.kind in ("breakpoint", "begin")
        assert timeline.machine.digest() == straight(demo_path, timeline.icount)


def test_all_else_is_as_before(demo_path: Path, enriched: Path) -> None:
    with open_trace(demo_path) as old, open_trace(enriched) as new:
        assert list(old.event_groups()) == list(new.event_groups())
        assert (old.header, old.end) == (new.header, new.end)
        assert sum(new.sizes().values()) == new.file_bytes
        assert Replay(new).run().identical
        first = new.path
    again = Path(first).with_name("again.wbt")
    shutil.copy(first, again)
    with open_trace(again) as trace:
        add_checkpoints(trace, 2 * EVERY)
    with open_trace(again) as trace:
        assert trace.closed
        assert len(trace.chunks(CHECKPOINT)) == (trace.icount - 1) // (2 * EVERY)
    assert [p.name for p in again.parent.iterdir() if p.name.endswith(".part")] == []


def test_another_engine(enriched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "source_key", lambda: "another")
    with open_trace(enriched) as trace:
        timeline = Timeline(trace)
        assert timeline.checkpoints == [0]
        assert timeline.kept.stored is not None
        assert "another version of the engine" in timeline.kept.stored.problem


def test_damage_costs_the_checkpoints_and_nothing_else(
    demo_path: Path, enriched: Path, tmp_path: Path
) -> None:
    """Bytes of a payload are changed under good checksums: the format's own checks are left."""
    rng = random.Random(3)
    data = enriched.read_bytes()
    with open_trace(enriched) as trace:
        last = trace.chunks(CHECKPOINT)[-1]
        payload = trace.payload(last)
        target = trace.icount - 10
    text, cpu, _ = struct.unpack_from("<IIQ", payload)
    tlbs = 16 + text + cpu - 3 * (1 << 15)
    cases = [payload[:n] for n in (0, 3, 15, 16, 200, len(payload) - 1)]
    for low, high in ((0, 16), (16, 16 + text), (tlbs, 16 + text + cpu), (16 + text + cpu, 0)):
        for _ in range(4):
            broken = bytearray(payload)
            broken[rng.randrange(low, high or len(payload))] ^= 1 << rng.randrange(8)
            cases.append(bytes(broken))
    for place in range(tlbs + 24, tlbs + 24 + 3 * (1 << 15), 32):  # all entries leave RAM
        broken = bytearray(payload) if place == tlbs + 24 else broken
        broken[place : place + 8] = b"\0\0\0\0\0\1\0\0"
    cases.append(bytes(broken))
    path = tmp_path / "broken.wbt"
    wanted = straight(demo_path, target)
    refused = 0
    for case in cases:
        chunk = encode_chunk(CHECKPOINT, last.number, case)
        path.write_bytes(data[: last.offset] + chunk + _renumbered(enriched, last.number))
        with open_trace(path) as trace:
            timeline = Timeline(trace)
            timeline.seek(target)
            assert timeline.icount == target
            assert timeline.kept.stored is not None
            if timeline.kept.stored.problem:
                refused += 1
                assert timeline.machine.digest() == wanted
    assert refused > len(cases) // 2


def _renumbered(path: Path, after: int) -> bytes:
    """What follows a chunk; the index does not fit any more and is left out."""
    with open_trace(path) as trace:
        first, last = trace.chunks()[after + 1], trace.chunks()[-1]
        return path.read_bytes()[first.offset : last.end]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"icounts": 3}', b'{"icounts": [2, 1]}', b'{"icounts": ["x", 1e400]}'],
)
def test_a_list_of_checkpoints_that_is_wrong(enriched: Path, tmp_path: Path, text: bytes) -> None:
    data = enriched.read_bytes()
    text = text.replace(b"{", b'{"engine": "%s", ' % source_key().encode()).replace(b", }", b"}")
    with open_trace(enriched) as trace:
        listed = trace.chunks(CHECKPOINTS)[0]
    chunk = encode_chunk(CHECKPOINTS, listed.number, text)
    path = tmp_path / "broken.wbt"
    path.write_bytes(data[: listed.offset] + chunk + _renumbered(enriched, listed.number))
    with open_trace(path) as trace:
        kept = Timeline(trace).kept
        assert kept.icounts() == [0]
        assert kept.problem.startswith("the checkpoints in the trace are not used: ")


def test_flips_in_the_file(demo_path: Path, enriched: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    data = enriched.read_bytes()
    with open_trace(enriched) as trace:
        chunks = trace.chunks(CHECKPOINT, PAGES)
        target = trace.icount - 10
    wanted = straight(demo_path, target)
    path = tmp_path / "flip.wbt"
    for chunk in rng.sample(chunks, min(5, len(chunks))):
        broken = bytearray(data)
        broken[rng.randrange(chunk.offset + CHUNK.size, chunk.end)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with open_trace(path) as trace:
            timeline = Timeline(trace)
            timeline.seek(target)
            assert timeline.machine.digest() == wanted


def test_plain_values() -> None:
    value = {"a": (1, [b"x", None]), 5: {"b": {}}, "t": True}
    assert from_plain(to_plain(value)) == value
    for bad in ({}, {"x": 1}, {"m": 3}, {"b": 1}):
        with pytest.raises(FormatError):
            from_plain(bad)


def test_on_the_command_line(
    demo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "demo.wbt"
    shutil.copy(demo_path, path)
    assert main(["checkpoint", str(path), "--every", "1"]) == 2
    assert "or more" in capsys.readouterr().err
    assert main(["checkpoint", str(path), "--every", "500K"]) == 0
    assert "checkpoints" in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    assert "checkpoints" in capsys.readouterr().out
    assert main(["inspect", str(path), "cpu", "--at", "end"]) == 0
