"""`log --follow` beside a recording, and Ctrl-C at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, environment
from workbench.cli.replay import cut_notice
from workbench.errors import FormatError, TraceWriteError
from workbench.trace import tables
from workbench.trace.header import End, Header
from workbench.trace.reader import open_trace
from workbench.trace.writer import TraceWriter

HEADER = Header(machine={"serial_ports": ["com1"]})
LCR, DLAB = 3, 0x80


class Recording:
    """A trace that is being written, and who follows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = TraceWriter(path, HEADER)
        self.icount = 0
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, offset: int, value: int) -> None:
        """Append a write to the UART."""
        self.icount += 10
        port = 0x3F8 + offset
        event = (tables.ACCESS, self.icount, 0, "pio", "com1", offset, 1, True, value, port, 1)
        self.writer.append([event], self.icount)

    def follow(self, *options: str) -> subprocess.Popen[str]:
        """Start `log --follow`."""
        command = [sys.executable, "-m", "workbench", "log", str(self.path), "-f", "--json"]
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
        self.processes.append(process)
        return process


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    found = Recording(tmp_path / "t.wbt")
    yield found
    found.writer.abandon()
    for process in found.processes:
        process.kill()
        process.communicate()


def _next(process: subprocess.Popen[str]) -> tuple[int, str]:
    assert process.stdout is not None
    row = json.loads(process.stdout.readline())
    return row["icount"], row["register"]


def test_what_is_recorded_is_shown_until_the_end(recording: Recording) -> None:
    process = recording.follow()  # before the guest is started
    recording.writer.embed({}, HEADER)
    recording.write(LCR, DLAB)
    assert _next(process) == (10, "LCR")
    recording.write(0, 1)  # what was selected before still holds
    assert _next(process) == (20, "DLL")
    recording.writer.close(End(30, 0, recording.writer.events, "limit", 0, "made", 0.0, ""))
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_the_last_lines_and_a_recorder_that_dies(recording: Recording) -> None:
    recording.writer.embed({}, HEADER)
    for _ in range(5):
        recording.write(LCR, 0)
    process = recording.follow("--tail", "1")
    assert _next(process) == (50, "LCR")
    recording.write(0, ord("x"))
    assert _next(process) == (60, "THR")
    recording.writer.abandon()
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 0)
    assert "was cut: it is complete up to instruction 60" in err


def test_a_limit_ends_it(recording: Recording) -> None:
    recording.writer.embed({}, HEADER)
    recording.write(LCR, 0)
    assert recording.follow("--limit", "1").communicate(timeout=20)[0].count("\n") == 1
    assert recording.follow("--to", "5").communicate(timeout=20) == ("", "")


def test_ctrl_c_is_one_line(recording: Recording) -> None:
    recording.writer.embed({}, HEADER)
    recording.write(LCR, 0)
    process = recording.follow()
    _next(process)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "workbench: interrupted\n")
    assert process.returncode == 130


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    fake = tmp_path / "argparse.py"
    fake.write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGINT)})\n", encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-m", "workbench", "stats", "t.wbt"], capture_output=True, text=True,
        check=False, env={**environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == "workbench: interrupted\n"


def test_two_recordings_into_one_file(recording: Recording) -> None:
    with pytest.raises(TraceWriteError, match="another process is recording this trace"):
        TraceWriter(recording.path, HEADER)
    recording.writer.embed({}, HEADER)
    with open_trace(recording.path) as trace:
        assert trace.events == 0  # nothing was lost by it
        assert trace.state == "recording"
        assert "is being recorded: it is complete up to instruction 0" in cut_notice(trace)
        recording.writer.abandon()
        assert trace.state == "cut"
    TraceWriter(recording.path, HEADER).abandon()


def test_a_file_that_is_recorded_anew(recording: Recording) -> None:
    recording.writer.embed({}, HEADER)
    recording.write(LCR, 0)
    with open_trace(recording.path) as trace:
        os.truncate(recording.path, 16)
        with pytest.raises(FormatError, match="shorter: it is recorded anew"):
            trace.wait(0)
