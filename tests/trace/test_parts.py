"""One trace in parts from its checkpoints: the same result as as a whole, or none."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gdbstub.conftest import demo_path
from tests.trace.test_stored import enriched
from workbench.cli.main import main
from workbench.trace import parts
from workbench.trace.container import CHECKPOINT, CHUNK, encode_chunk
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay

__all__ = ["demo_path", "enriched"]


def test_the_plan(enriched: Path, demo_path: Path) -> None:
    with open_trace(enriched) as trace:
        assert parts.plan(trace, 1) == [parts.Part(parts.BEGINNING, 0, None)]
        plan = parts.plan(trace, 4)
        assert len(plan) == 4
        for one, other in itertools.pairwise(plan):
            assert one.end == other.start
        assert len(parts.plan(trace, 1000)) <= 1000
    with open_trace(demo_path) as trace:
        assert len(parts.plan(trace, 4)) == 1  # it has no checkpoints


@pytest.mark.parametrize("most", [2, 5, 100])
def test_parts_are_the_run(enriched: Path, most: int) -> None:
    with open_trace(enriched) as trace:
        whole = Replay(trace).run()
    found = parts.verify(str(enriched), most, jobs=1)
    assert found is not None
    assert replace(found, wall_s=0) == replace(whole, wall_s=0)
    assert found.identical


def test_each_part_has_its_own_events(enriched: Path) -> None:
    with open_trace(enriched) as trace:
        plan = parts.plan(trace, 3)
        whole = trace.events
    found = [parts.replay_part(str(enriched), part, False, None, ()) for part in plan]
    assert [o.first for o in found if o] == [0, *(o.result.events for o in found[:-1] if o)]
    assert found[-1] is not None
    assert found[-1].result.events == whole
    assert parts.joined(found, digests=False) == found
    assert parts.joined([found[0], found[2]], digests=False) is None
    assert parts.joined([*found[:2], None], digests=False) is None


def test_in_processes(enriched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(enriched), "--jobs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["replay", str(enriched), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    found.pop("wall_s", None), whole.pop("wall_s", None)
    assert {k: v for k, v in found.items() if "mips" not in k} == {
        k: v for k, v in whole.items() if "mips" not in k
    }


def test_without_checkpoints_as_a_whole(
    demo_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(demo_path), "--jobs", "2", "--quiet"]) == 0
    assert "has no checkpoints" in capsys.readouterr().err


def test_a_wrong_checkpoint_proves_nothing(enriched: Path, tmp_path: Path) -> None:
    """A checkpoint whose processor has another value in a register that is not looked at soon."""
    path = tmp_path / "wrong.wbt"
    shutil.copy(enriched, path)
    with open_trace(path) as trace:
        plan = parts.plan(trace, 2)
        chunk = trace.chunks(CHECKPOINT)[plan[1].checkpoint]
        payload = bytearray(trace.payload(chunk))
    text = int.from_bytes(payload[:4], "little")
    at = payload.index(b"time_ps")
    end = payload.index(b",", at) if b"," in payload[at : at + 40] else payload.index(b"}", at)
    digit = end - 1
    payload[digit] = ord("1") if payload[digit] != ord("1") else ord("2")
    assert text
    data = bytearray(path.read_bytes())
    new = encode_chunk(CHECKPOINT, chunk.number, bytes(payload), rows=0)
    if len(new) != CHUNK.size + chunk.stored_bytes:
        pytest.skip("the chunk is compressed")
    data[chunk.offset : chunk.offset + len(new)] = new
    path.write_bytes(data)
    assert parts.verify(str(path), 2, jobs=1) is None
    assert main(["replay", str(path), "--jobs", "2", "--quiet"]) == 0
