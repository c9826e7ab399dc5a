"""Looking changes nothing: at many moments of a run, and the run ends as it always did."""

from __future__ import annotations

from pathlib import Path

from tests.gdbstub.conftest import demo_path
from workbench import inspect
from workbench.trace.reader import open_trace
from workbench.trace.timeline import Timeline

__all__ = ["demo_path"]


def test_looking_at_many_moments(demo_path: Path) -> None:
    with open_trace(demo_path) as trace:
        timeline = Timeline(trace)
        machine = timeline.machine
        for n in range(25):
            timeline.seek(trace.icount * n // 24)
            before = machine.digest()
            for name in inspect.names(machine):
                inspect.capture(machine, name)
            assert machine.digest() == before
        assert trace.end is not None
        timeline.go()
        assert machine.digest().hex() == trace.end.digest
