"""Recorders that fail: a full disk, a file size limit, a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.trace import fake
from workbench.errors import TraceWriteError
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Recording

ROOT = Path(__file__).parents[2]
CHILD = """
    import resource, sys
    from tests.trace import fake
    from workbench.errors import WorkbenchError
    from workbench.trace import recorder
    from workbench.trace.session import Recording
    recorder.FLUSH_SECONDS = 0.02
    path, insns, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    recording = Recording(path, fake.config(insns), fake.GUEST, build=fake.FakeMachine)
    try:
        recording.run()
    except WorkbenchError as error:
        print(error)
        sys.exit(error.exit_status)
"""


def child(path: Path, insns: int, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(path), str(insns), str(limit)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def replays(path: Path) -> int:
    """Replay a cut trace; gives the instruction count up to which it is complete."""
    with open_trace(path) as trace:
        assert trace.state == "cut"
        result = Replay(trace, build=fake.FakeMachine).run()
        assert result.identical
        assert result.cut
        return trace.icount


@pytest.mark.parametrize("limit", [1_000, 100_000, 300_000])
def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "t"
    process = child(path, 20_000_000, limit)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert "the trace cannot be written any further: file too large" in out
    assert "\n" not in out.strip()
    assert path.stat().st_size <= limit
    kept = re.search(r"up to instruction ([\d,]+) is kept", out)
    icount = replays(path)
    if kept:
        assert int(kept[1].replace(",", "")) == icount > 0
    else:
        assert "nothing was recorded" in out


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(TraceWriteError, match="no space left on device; nothing was recorded"):
        Recording("/dev/full", fake.config(), fake.GUEST, build=fake.FakeMachine)


def test_a_killed_recorder_leaves_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "t"
    process = child(path, 10**9)
    deadline = time.monotonic() + 30
    # Until a few groups are there.
    while not (path.exists() and path.stat().st_size > 150_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert replays(path) > 100_000


def test_a_fault_of_ours_is_no_good_recording(tmp_path: Path) -> None:
    path = tmp_path / "t"
    recording = Recording(str(path), fake.config(10**7), fake.GUEST, build=fake.FakeMachine)
    assert isinstance(recording.machine, fake.FakeMachine)
    machine = recording.machine

    def spoil(number: int, call: list[object]) -> list[object]:
        if number == 5000:
            recording.recorder.flush()
            return ["on_exit", None, "no number", 0, 0]
        return call

    machine.sabotage = spoil
    with pytest.raises(TraceWriteError, match="internal error"):
        recording.run()
    assert replays(path) > 0
