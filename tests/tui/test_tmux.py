"""In a real tmux: whatever ends the application, the pane is as it was before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tui.conftest import DEMO
from tests.tui.terminal import own
from tests.tui.test_ways_out import _BROKEN, child_of, wait_gone

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
_SCRIPT = 'stty -g; {program}; echo "status $?"; stty -g; exec sleep 60'


class Tmux:
    """A server of its own with one pane, in which the application runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = str(folder / "socket")

    def run(self, *args: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *args],
            env=own(self._folder), check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip

    def open(self, *program: str) -> None:
        words = " ".join(f"'{word}'" for word in (sys.executable, *program))
        self.run("new-session", "-d", "-x", "100", "-y", "30", _SCRIPT.format(program=words))

    @property
    def text(self) -> str:
        return self.run("capture-pane", "-p")

    def wait(self, what: str) -> None:
        end = time.monotonic() + 60
        while what not in self.text:
            assert time.monotonic() < end, self.text
            time.sleep(0.05)

    def guardian(self) -> int:
        """The process that was started, a child of the pane's shell."""
        return child_of(int(self.run("display-message", "-p", "#{pane_pid}")))

    def restored(self, status: int) -> None:
        """Is the pane as it was?"""
        self.wait(f"status {status}\n")
        modes = "#{alternate_on} #{mouse_any_flag} #{cursor_flag} #{keypad_flag} #{wrap_flag}"
        assert self.run("display-message", "-p", modes) == "0 0 1 0 1\n"
        end = time.monotonic() + 10
        while len(ttys := [line for line in self.text.split("\n") if line.count(":") > 20]) < 2:
            assert time.monotonic() < end, self.text
            time.sleep(0.05)
        assert len(set(ttys)) == 1
        assert "Traceback" not in self.text


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(tmp_path)
    yield made
    subprocess.run(["tmux", "-S", str(tmp_path / "socket"), "kill-server"], check=False)


def looking(tmux: Tmux, tmp_path: Path) -> int:
    """The application with the demo on screen; gives its guardian."""
    tmux.open("-m", "workbench", "tui", str(shutil.copy(DEMO, tmp_path / "demo.wbt")))
    tmux.wait("accesses 1/")
    assert tmux.run("display-message", "-p", "#{alternate_on} #{mouse_any_flag}") == "1 1\n"
    return tmux.guardian()


def test_a_crash_in_a_key(tmux: Tmux, tmp_path: Path) -> None:
    demo = str(shutil.copy(DEMO, tmp_path / "demo.wbt"))
    script = tmp_path / "broken.py"
    script.write_text(_BROKEN.format(module="log", name="LogPane", method="move"))
    tmux.open(str(script), demo)
    tmux.wait("accesses 1/")
    tmux.run("send-keys", "Down")
    tmux.restored(1)
    assert "internal error (RuntimeError: a fault of ours)" in tmux.text


@pytest.mark.parametrize(
    ("whom", "number", "status"),
    [
        (child_of, signal.SIGKILL, 137),
        (child_of, signal.SIGSEGV, 139),
        (int, signal.SIGTERM, 130),
        (int, signal.SIGHUP, 130),
    ],
    ids=["killed", "crashed", "ended", "hung up"],
)
def test_a_signal(
    tmux: Tmux, tmp_path: Path, whom: Callable[[int], int], number: int, status: int
) -> None:
    os.kill(whom(looking(tmux, tmp_path)), number)
    tmux.restored(status)


def test_a_closed_window_leaves_nothing_that_runs(tmux: Tmux, tmp_path: Path) -> None:
    guardian = looking(tmux, tmp_path)
    child = child_of(guardian)
    tmux.run("kill-server")
    wait_gone(child)
    wait_gone(guardian)
