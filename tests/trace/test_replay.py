"""Replays: identical ones, and the first difference of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trace import fake
from tests.trace.conftest import Make
from workbench.trace import container, tables
from workbench.trace.container import ContainerFile
from workbench.trace.explain import describe, describe_divergence
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay, ReplayResult


def replay(
    path: Path, sabotage: Callable[[int, list[Any]], list[Any] | None] | None = None
) -> tuple[Replay, ReplayResult]:
    with open_trace(path) as trace:
        run = Replay(trace, build=fake.FakeMachine)
        assert isinstance(run.machine, fake.FakeMachine)
        if sabotage is not None:
            run.machine.sabotage = sabotage
        result = run.run()
        if result.divergence is not None:
            list(run.events_before(result.divergence.index))
        return run, result


def sentence(path: Path, sabotage: Callable[[int, list[Any]], list[Any] | None]) -> str:
    with open_trace(path) as trace:
        run = Replay(trace, build=fake.FakeMachine)
        assert isinstance(run.machine, fake.FakeMachine)
        run.machine.sabotage = sabotage
        result = run.run()
        assert not result.identical
        assert result.divergence is not None
        before = run.events_before(result.divergence.index)
        return describe_divergence(result.divergence, run.machine, before)


def test_a_replay_is_identical(make_trace: Make) -> None:
    path = make_trace(insns=50_000, code=7)
    with open_trace(path) as trace:
        end = trace.end
        assert end is not None
    _, result = replay(path)
    assert result.identical
    assert result.verified
    assert (result.events, result.digest, result.stop) == (end.events, end.digest, "shutdown")


def test_a_replay_without_verification(make_trace: Make) -> None:
    with open_trace(make_trace(insns=50_000)) as trace:
        run = Replay(trace, verify=False, build=fake.FakeMachine)
        out: list[bytes] = []
        run.observer.console_sink = lambda device, data: out.append(data)
        result = run.run()
        assert b"".join(out) == trace.console_bytes()
    assert (result.identical, result.verified, result.events) == (True, False, 0)
    assert result.icount == 50_000


@pytest.mark.parametrize("index", [0, 1, 700])
def test_the_first_difference_is_found(make_trace: Make, index: int) -> None:
    path = make_trace(insns=40_000)

    def other(number: int, call: list[Any]) -> list[Any] | None:
        # Every event from here on is wrong, only the first counts.
        return call if number < index else ["on_exit", "wrong", call_icount(call), 1, 2]

    _, result = replay(path, other)
    assert result.divergence is not None
    # The fake counts its own events; the log also has the digests of the session.
    with open_trace(path) as trace:
        flat = [event for group in trace.event_groups() for event in group]
    assert result.divergence.recorded == flat[result.divergence.index]
    digests = [e for e in flat[: result.divergence.index] if e[0] == tables.DIGEST]
    assert result.divergence.index == index + len(digests)
    assert result.events == result.divergence.index


def call_icount(call: list[Any]) -> int:
    name, *args = call
    if name == "on_input":
        return int(args[0].icount)
    place = {"on_access": 7, "on_exit": 1, "on_interrupt": 1, "on_exception": 2, "on_dma": 4}
    return int(args[place.get(name, 2)])


def test_the_sentence_names_register_and_values(make_trace: Make) -> None:
    path = make_trace(insns=40_000)

    def other(number: int, call: list[Any]) -> list[Any] | None:
        if number > 50 and call[0] == "on_access" and call[2] == "com1" and call[5]:
            call[6] ^= 1
        return call

    text = sentence(path, other)
    assert "the replay diverged at event " in text
    assert "PC 0xffffffff8100" in text
    assert "recorded com1 pio write of 1 at 0x0 <- 0x" in text
    assert " THR=0x" in text


def test_an_event_too_many_and_one_missing(make_trace: Make) -> None:
    path = make_trace(insns=40_000)
    with open_trace(path) as trace:
        count = trace.events
    _, result = replay(path, lambda number, call: None if number == 300 else call)
    assert result.divergence is not None
    assert result.stop == "diverged"
    _, result = replay(path, lambda number, call: call if number < 800 else None)
    assert result.divergence is not None
    assert result.divergence.index < count


def test_events_left_over_at_the_end(make_trace: Make) -> None:
    path = make_trace(insns=5_000)
    with open_trace(path) as trace:
        derived = trace.events - trace.rows("digests")
    _, result = replay(path, lambda number, call: call if number < derived - 1 else None)
    assert not result.identical
    assert result.divergence is not None


def test_another_state_with_the_same_events(make_trace: Make) -> None:
    path = make_trace(insns=5_000)
    with open_trace(path) as trace:
        run = Replay(trace, build=fake.FakeMachine)
        assert isinstance(run.machine, fake.FakeMachine)
        run.machine._state.update(b"other")
        result = run.run()
    assert result.divergence is not None
    assert result.divergence.event[0] == tables.DIGEST
    assert "recorded state (full)" in describe_divergence(result.divergence, run.machine)


def test_a_run_that_does_not_stop_where_it_did(make_trace: Make) -> None:
    path = make_trace(insns=5_000)
    with open_trace(path) as trace:
        run = Replay(trace, build=fake.FakeMachine)
        assert isinstance(run.machine, fake.FakeMachine)
        run.machine.stop = fake.Stop("triple-fault", 0, "")
        result = run.run()
    assert not result.identical
    assert "stopped at instruction 5,000 (shutdown), the replay at 5,000 (triple-fault)" in (
        result.message
    )


def test_a_cut_trace_replays_to_its_end(make_trace: Make) -> None:
    path = make_trace(insns=60_000)
    data = path.read_bytes()
    file = ContainerFile(path)
    marks = [c.end for c in file.layout().chunks if c.kind == container.MARK]
    file.close()
    for end in marks:
        path.write_bytes(data[: end + 7])
        with open_trace(path) as trace:
            events = trace.events
        _, result = replay(path)
        assert (result.identical, result.cut, result.events) == (True, True, events)
    path.write_bytes(data[: marks[-1]])
    _, result = replay(path, lambda number, call: None if number == 100 else call)
    assert result.divergence is not None


def test_an_interrupted_replay(make_trace: Make) -> None:
    with open_trace(make_trace()) as trace:
        run = Replay(trace, build=fake.FakeMachine)
        run.interrupt()
        result = run.run()
    assert (result.stop, result.identical, result.divergence) == ("interrupted", False, None)


def test_every_event_has_words(make_trace: Make) -> None:
    from tests.trace.test_trace import EVENTS

    for event in EVENTS:
        assert describe(event)
