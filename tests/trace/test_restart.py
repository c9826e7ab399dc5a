"""A guest that resets the machine starts again, in the recording and in every way through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trace import guests
from workbench.core.config import RESTART, MachineConfig
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Recording
from workbench.trace.timeline import Timeline


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three resets: by RC, by port 92h, by the keyboard controller."""
    path = tmp_path_factory.mktemp("restart") / "restart.wbt"
    config = MachineConfig(ram_bytes=32 << 20, at_reset=RESTART)
    outcome = Recording(str(path), config.to_json(), guests.REBOOT).run()
    assert (outcome.stop, outcome.code) == ("shutdown", ord("D") << 1 | 1)
    return path


def test_each_way_to_reset(trace: Path) -> None:
    with open_trace(trace) as found:
        assert found.console_bytes("com1") == b"ABCD"
        exits = found.exits.to_pylist()
        resets = [row for row in exits if row["kind"] == "reset"]
        accesses = found.accesses.to_pylist()
        causes = [
            max((a for a in accesses if a["seq"] < reset["seq"]), key=lambda a: a["seq"])["addr"]
            for reset in resets
        ]
        assert causes == [0xCF9, 0x92, 0x64]
        result = Replay(found).run()
        assert result.identical, result.message


def test_without_it_a_reset_is_the_end(tmp_path: Path) -> None:
    config = MachineConfig(ram_bytes=32 << 20).to_json()
    assert "at_reset" not in config
    outcome = Recording(str(tmp_path / "end.wbt"), config, guests.REBOOT).run()
    assert outcome.stop == "reset"


def test_time_travel_across_a_reset(trace: Path) -> None:
    with open_trace(trace) as found:
        timeline = Timeline(found)
        end = found.icount
        timeline.seek(end)
        states = []
        while timeline.icount > 0:
            states.append((timeline.icount, timeline.machine.digest()))
            timeline.step_back()
        assert [icount for icount, _ in states] == list(range(end, 0, -1))
        again = Timeline(found)
        for icount, digest in reversed(states):
            again.seek(icount)
            assert again.machine.digest() == digest, icount


def test_the_processor_is_as_reset_leaves_it() -> None:
    """But random numbers go on, and the time stamp counter begins again."""
    from workbench.hw.board import build_pc

    machine = build_pc(MachineConfig(ram_bytes=1 << 20, at_reset=RESTART, seed=77))
    machine.restart = lambda: None
    cpu = machine.cpu
    machine.clock.skip_to(5_000_000_000)
    cpu.set("gpr", 5, 3)
    cpu.set("tsc_offset", 123)
    machine.set_nmi()
    machine.request_reset("test")
    machine.run(0)
    assert (cpu.get("rip"), cpu.get("seg_base", 1), cpu.get("gpr", 3)) == (0xFFF0, 0xFFFF0000, 0)
    assert cpu.get("rand_state") == 77
    assert cpu.get("tsc_offset") == -5_000_000 & (1 << 64) - 1


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="expected at_reset 'end' or 'restart', not 'no'"):
        MachineConfig.from_json({"ram_bytes": 1 << 20, "at_reset": "no"})
