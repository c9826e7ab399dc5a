"""The helper process that encodes: same payloads, no process left, and no loss when it dies."""

from __future__ import annotations

import os
import signal
import time
from array import array
from itertools import chain
from pathlib import Path

import pytest

from tests.trace import fake
from tests.trace.test_trace import EVENTS
from workbench.core.requests import Requests
from workbench.core.spans import spans_of
from workbench.trace import recorder, tables
from workbench.trace.encoder import LARGE_BYTES, Helper, encode
from workbench.trace.events import EventObserver
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Recording


def test_the_helper_gives_the_same_payloads() -> None:
    helper = Helper()
    assert helper.encode(EVENTS, 7) == encode(EVENTS, 7)
    assert helper.encode(EVENTS * 100, 0) == encode(EVENTS * 100, 0)
    process = helper._process
    helper.close()
    assert process.returncode == 0


def test_a_helper_ends_with_its_input() -> None:
    helper = Helper()
    helper._to.close()
    assert helper._process.wait(30) == 0
    helper.close()


@pytest.mark.parametrize("kill", [False, True])
def test_a_recording_with_a_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.02)
    recording = Recording(
        str(tmp_path / "t"), fake.config(6_000_000), fake.GUEST, build=fake.FakeMachine
    )
    pids: list[int] = []

    def slow(machine: fake.FakeMachine) -> None:
        time.sleep(0.1)
        helper = recording.recorder._helper
        if helper is not None and not pids:
            pids.append(helper._process.pid)
            if kill:
                os.kill(helper._process.pid, signal.SIGKILL)

    assert isinstance(recording.machine, fake.FakeMachine)
    recording.machine.on_slice = slow
    recording.run()
    assert pids
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    with open_trace(tmp_path / "t") as trace:
        assert trace.closed
        assert Replay(trace, build=fake.FakeMachine).run().identical


def test_large_inputs_go_beside_the_events() -> None:
    data = [bytes([n]) * size for n, size in enumerate((10, LARGE_BYTES, 5, LARGE_BYTES + 7))]
    events = [(tables.INPUT, n, n, "drive0", "fetch", part) for n, part in enumerate(data)]
    helper = Helper()
    try:
        assert helper.encode(events, 3) == encode(events, 3)
    finally:
        helper.close()


def test_an_event_stands_for_a_burst_of_requests() -> None:
    log = EventObserver()
    one_by_one: list[tables.Event] = []
    log._append = one_by_one.append
    handle = Requests("net0")
    handle.report_burst = lambda burst: log.on_burst(burst, 9)
    bursts = [[(0x100 + n, 60, n, 0x9000 * n, 64) for n in range(m)] for m in (3, 1)]
    for served in bursts:
        handle.burst("rx", served, queue=0)
    assert [event[0] for event in one_by_one] == [tables.REQUEST, tables.DMA, tables.REQUEST] * 4
    packed = [
        (tables.REQUEST, 9, "net0", first, "rx", 0, array("Q", chain(*served)).tobytes())
        for first, served in zip((1, 4), bursts, strict=True)
    ]
    fetch = (tables.INPUT, 9, 9, "drive0", "fetch", bytes(LARGE_BYTES))
    rest = [fetch, EVENTS[0]]
    assert encode([*packed, *rest], 3) == encode([*one_by_one, *rest], 3)
    assert [tables.weight(event) for event in packed] == [(9, 0), (3, 0)]


def test_an_event_stands_for_many_transfers() -> None:
    spans = [(0x1000 * n, 0x200 + n) for n in range(5)]
    many = (tables.DMA, 9, "ide", spans_of(spans).tobytes(), True)
    fetch = (tables.INPUT, 9, 9, "drive0", "fetch", bytes(LARGE_BYTES))
    events = [EVENTS[0], many, fetch, many, EVENTS[0]]
    one_by_one = [(tables.DMA, 9, "ide", gpa, length, True) for gpa, length in spans]
    assert encode(events, 3) == encode([EVENTS[0], *one_by_one, fetch, *one_by_one, EVENTS[0]], 3)
    assert [tables.weight(event) for event in events[:3]] == [(1, 0), (5, 0), (1, LARGE_BYTES)]
