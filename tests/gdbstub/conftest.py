"""A recording of the demo guest, and machines to debug it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.core.config import MachineConfig
from workbench.firmware import demo
from workbench.trace.guest import Guest
from workbench.trace.reader import Trace, open_trace
from workbench.trace.session import Limits, Recording
from workbench.trace.timeline import Timeline


@pytest.fixture(scope="session")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record the demo guest."""
    path = tmp_path_factory.mktemp("gdb") / "demo.wbt"
    config = MachineConfig(ram_bytes=64 << 20, rtc_epoch_s=1_767_225_600, seed=1)
    guest = Guest(demo.image(), kernel_path="demo.elf")
    recording = Recording(str(path), config.to_json(), guest, limits=Limits(icount=50_000_000))
    assert recording.run().stop == "shutdown"
    return path


@pytest.fixture
def trace(demo_path: Path) -> Iterator[Trace]:
    """Open the recording."""
    with open_trace(demo_path) as opened:
        yield opened


@pytest.fixture
def timeline(trace: Trace) -> Timeline:
    """A timeline at the start of the recording, with checkpoints close together."""
    found = Timeline(trace)
    found.kept.spacing_icount = 500_000
    found.kept.saving_share, found.kept.gap_s = 1e9, 0
    return found
