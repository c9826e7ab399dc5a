"""A terminal for tests: a program in a pseudo-terminal, and pyte to say what is on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import environment

pyte = pytest.importorskip("pyte")
# pyte does not know these (keyboard protocols, other modes) and would print them.
_UNKNOWN = re.compile(rb"\x1b\[[<=>][0-9;]*[a-zA-Z]")


def own(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a user whose settings and history are in a folder."""
    places = {"XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder)}
    return environment(**{"TERM": "xterm-256color", **places, **more})


class Terminal:
    """Runs a program; `text` is what the user sees."""

    def __init__(
        self, argv: Sequence[str], environment: dict[str, str], columns: int = 80, rows: int = 24
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], list(argv), environment)
        self.resize(columns, rows)
        self.mode = termios.tcgetattr(self.fd)

    def resize(self, columns: int, rows: int) -> None:
        """What happens when the user drags the window's corner."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def pump(self, seconds: float = 0.05) -> bool:
        """Take what is printed for a while; False when the program has gone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 1 << 16)
                except OSError:
                    return False
                if not data:
                    return False
                self.raw += data
                if b"\x1b[6n" in data:
                    os.write(self.fd, b"\x1b[1;1R")
                self._stream.feed(_UNKNOWN.sub(b"", data))
        return True

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def send(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode())
        self.pump(0.1)

    def wait(self, what: str, seconds: float = 60) -> str:
        """Wait until a pattern is on the screen, and give what matched."""
        end = time.monotonic() + seconds
        while (found := re.search(what, self.text)) is None:
            assert time.monotonic() < end, f"{what!r} is not on the screen:\n{self.text}"
            assert self.pump(), f"the program has gone:\n{self.text}"
        return found[0]

    def end(self) -> int:
        """Wait for the program's end; gives its exit status, negative for a signal."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            self.pump(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"the program does not end:\n{self.text}")

    def restored(self) -> bool:
        """Is the terminal as it was: screen, mouse, modes?"""
        for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?1000h", b"\x1b[?1000l"),
                        (b"\x1b[?25l", b"\x1b[?25h")):  # fmt: skip
            if self.raw.rfind(on) > self.raw.rfind(off):
                return False
        return bool(termios.tcgetattr(self.fd) == self.mode)

    def close(self) -> None:
        """Make sure that nothing is left."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
