"""The console on a real (pseudo) terminal: raw mode, keys, signals, and that it is restored."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench as api
from tests.cli.conftest import command, environment
from workbench.cli.terminal import HELP, EscapeFilter

LONG = {"FAKE_SLOW": "1", "FAKE_INSNS": "1000000000"}


class Session:
    """`workbench record` on the fake machine, on a terminal of its own."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        (folder / "vmlinuz").write_bytes(b"kernel")
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [*command(True), "record", "--kernel", "vmlinuz", "-o", "t.wbt"],
            cwd=folder,
            env=environment(**{"TERM": "xterm", "COLUMNS": "100", **env}),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            # The terminal has to be the controlling one for Ctrl-C to become a signal.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509
        )

    def read_until(self, text: bytes, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            left = deadline - time.monotonic()
            assert left > 0, self.output
            if select.select([self.master], [], [], left)[0]:
                self.output += os.read(self.master, 65536)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def end(self) -> int:
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self.master], [], [], 0.05)[0]:
                self.output += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before
        with api.open(self.folder / "t.wbt") as trace:
            assert trace.state == "closed"
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def long_session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path, **LONG)
    yield session
    session.close()


def test_keys_reach_the_guest_and_the_summary_is_shown(long_session: Session) -> None:
    long_session.read_until(b"$ ")
    long_session.type(b"hello\x1a\x1c")
    long_session.read_until(b"HELLO\x1a\x1c")
    long_session.type(b"q")
    assert long_session.end() == 0
    assert b"MIPS" in long_session.output
    assert b"register accesses" in long_session.output
    with api.open(long_session.folder / "t.wbt") as trace:
        assert b"".join(trace.inputs["data"].to_pylist()) == b"hello\x1a\x1cq"


def test_ctrl_c_ends_the_recording(long_session: Session) -> None:
    long_session.read_until(b"$ ")
    long_session.type(b"\x03")
    assert long_session.end() == 130
    assert b"ended by the user" in long_session.output


def test_the_escape_key_ends_the_recording(long_session: Session) -> None:
    long_session.read_until(b"$ ")
    long_session.type(b"\x01cab")
    long_session.read_until(b"\x03AB")
    long_session.type(b"\x01?")
    long_session.read_until(b"end the run")
    long_session.type(b"\x01x")
    assert long_session.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_recording(long_session: Session, number: int) -> None:
    long_session.read_until(b"$ ")
    long_session.process.send_signal(number)
    assert long_session.end() == 130


def test_no_color_is_respected(tmp_path: Path) -> None:
    for env, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        session = Session(tmp_path, FAKE_INSNS="2000", **env)
        assert session.end() == 0
        summary = session.output[session.output.rindex(b"recorded") :]
        assert (b"\x1b[36m" in summary) == colours
        session.close()


def test_the_escape_filter() -> None:
    quits: list[int] = []
    told: list[bytes] = []
    keys = EscapeFilter(lambda: quits.append(1), told.append)
    assert keys.feed(b"ab\x01") == b"ab"
    assert keys.feed(b"c\x01\x01d\x01a") == b"\x03\x01d\x01"
    assert keys.feed(b"\x01h\x01X") == b""
    assert (told, quits) == ([HELP], [1])


def test_machine_code_that_does_not_come_back(tmp_path: Path) -> None:
    session = Session(tmp_path, FAKE_STUCK="1", **LONG)
    session.read_until(b"$ ")
    with pytest.raises(AssertionError):
        session.read_until(b"never printed", 1.5)
    session.type(b"\x03")
    with pytest.raises(AssertionError, match="cut"):
        session.end()
    assert session.process.returncode == 130
    assert b"does not come back; the trace is kept as if cut" in session.output
    session.close()
