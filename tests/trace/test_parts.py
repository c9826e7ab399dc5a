"""One trace in parts from its checkpoints: the same result as as a whole, or none."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.gdbstub.conftest import demo_path
from tests.trace.test_stored import _renumbered, enriched
from workbench.cli.main import main
from workbench.trace import findings, parts, stacks
from workbench.trace.container import CHECKPOINT, compress, encode_chunk
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
    """A checkpoint with another page of memory, in which nobody may look any more."""
    path = tmp_path / "wrong.wbt"
    shutil.copy(enriched, path)
    with open_trace(path) as trace:
        plan = parts.plan(trace, 2)
        chunk = trace.chunks(CHECKPOINT)[plan[1].checkpoint]
        payload = bytearray(trace.payload(chunk))
    at = 16 + int.from_bytes(payload[:4], "little") + int.from_bytes(payload[4:8], "little")
    other = parts.replay_part(str(path), plan[1], True, None, ())
    pages = payload[at:]  # the last page that is not all zeroes gets the contents of the first
    used = [n for n in range(0, len(pages), 4) if any(pages[n : n + 4])]
    payload[at + used[-1] : at + used[-1] + 4] = pages[used[0] : used[0] + 4]
    new = encode_chunk(CHECKPOINT, chunk.number, bytes(payload))
    data = enriched.read_bytes()
    path.write_bytes(data[: chunk.offset] + new + _renumbered(enriched, chunk.number))
    wrong = parts.replay_part(str(path), plan[1], True, None, ())
    assert other is not None
    assert wrong is not None
    assert wrong.start_digest != other.start_digest
    assert parts.verify(str(path), 2, jobs=1) is None
    assert main(["replay", str(path), "--jobs", "2", "--quiet"]) == 0


def test_call_chains_in_parts(
    enriched: Path, demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(
        findings,
        "cache",
        SimpleNamespace(fetch=kept.get, store=lambda name, data, _: kept.update({name: data})),
    )
    calls: list[parts.Part] = []
    real = parts.replay_part

    def count(path: str, part: parts.Part, *rest: Any) -> parts.Outcome | None:
        calls.append(part)
        return real(path, part, *rest)

    monkeypatch.setattr(parts, "replay_part", count)
    with open_trace(demo_path) as trace:
        whole = stacks.of_trace(trace)
        icounts = trace.accesses["icount"].to_pylist()
        assert not calls
    kept.clear()
    with open_trace(enriched) as trace:
        found = stacks.of_trace(trace, jobs=1)
        assert len(calls) > 4
        every = range(trace.rows("accesses"))
        assert [found.chain(n) for n in every] == [whole.chain(n) for n in every]
        calls.clear()
        again = stacks.of_trace(trace, jobs=1)  # kept
        assert not calls
        assert (again.chains, again.of_access) == (found.chains, found.of_access)
        late = stacks.of_trace(trace, ("com*",), icounts[-20], jobs=1)
        assert len(calls) < 4  # only where it is asked for
        wanted = [n for n in every if late.chain(n)]
        assert wanted
        assert wanted[0] >= len(icounts) - 20
        assert all(late.chain(n) == whole.chain(n) for n in wanted)
        # What is kept under the name and is none of ours is found again.
        for name in kept:
            kept[name] = compress(b"\xff" * 40)
        calls.clear()
        assert stacks.of_trace(trace, jobs=1).of_access == found.of_access
        assert calls


def test_call_chains_in_processes(enriched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_cache = SimpleNamespace(fetch=lambda _: None, store=lambda *_: None)
    monkeypatch.setattr(findings, "cache", no_cache)
    with open_trace(enriched) as trace:
        one, two = (stacks.of_trace(trace, jobs=jobs) for jobs in (1, 2))
    assert (one.chains, one.of_access, one.has_orc) == (two.chains, two.of_access, two.has_orc)
