"""Every way out leaves the terminal as it was, with one sentence, and nothing that runs on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.tui.conftest import DEMO
from tests.tui.terminal import Terminal

Open = Callable[..., Terminal]
_BROKEN = """
import sys
from workbench.tui.panes.{module} import {name}
def fail(*args): raise RuntimeError("a fault of ours")
{name}.{method} = fail
from workbench.cli.main import main
sys.exit(main(["tui", sys.argv[1]]))
"""


@pytest.fixture
def tui(tmp_path: Path) -> Iterator[Open]:
    """Start the application on a copy of the demo's trace, or a program instead of it."""
    opened = []
    trace = str(shutil.copy(DEMO, tmp_path / "demo.wbt"))

    def start(*argv: str) -> Terminal:
        variables = environment(
            TERM="xterm-256color", XDG_CONFIG_HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path)
        )
        program = [sys.executable, *(argv or ("-m", "workbench", "tui")), trace]
        opened.append(Terminal(program, variables))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child_of(pid: int) -> int:
    return children_of(pid)[0]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_gone(pid: int) -> None:
    end = time.monotonic() + 20
    while not gone(pid):
        assert time.monotonic() < end, f"process {pid} runs on"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_application(tui: Open, number: int) -> None:
    t = tui()
    t.wait("accesses 1/")
    child = child_of(t.pid)
    os.kill(child, number)
    assert t.end() == 128 + number
    assert t.restored()
    assert f"workbench: the screen was ended by {signal.Signals(number).name}" in t.text
    assert gone(child)


def test_a_killed_guardian(tui: Open) -> None:
    t = tui()
    t.wait("accesses 1/")
    child = child_of(t.pid)
    os.kill(t.pid, signal.SIGKILL)
    assert t.end() == -signal.SIGKILL
    wait_gone(child)
    t.pump(0.1)
    assert t.restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal(tui: Open, number: int) -> None:
    t = tui()
    t.wait("rbx 0")
    child = child_of(t.pid)
    os.kill(t.pid, number)
    assert t.end() == 130
    assert t.restored()
    assert "workbench: a signal or the loss of the terminal ended it" in t.text
    assert gone(child)


def test_ctrl_c_before_there_is_a_screen(tui: Open) -> None:
    """The key's signal goes to both processes; one of them says so."""
    t = tui()
    end = time.monotonic() + 20
    while not children_of(t.pid):  # its guardian stands by
        assert time.monotonic() < end
        t.pump(0.01)
    os.kill(children_of(t.pid)[0], signal.SIGSTOP)
    os.kill(children_of(t.pid)[0], signal.SIGCONT)
    t.send("\x03")
    while b"?1049h" not in t.raw and children_of(t.pid):
        assert time.monotonic() < end
        t.pump(0.01)
    if children_of(t.pid):  # this host was quicker: on the screen it is a key
        t.send("q")
    status = t.end()
    assert status in (0, 130)
    assert t.text.count("workbench:") == (status == 130)
    assert t.restored()


def test_a_stopped_application_goes_on(tui: Open) -> None:
    t = tui()
    t.wait("accesses 1/")
    child = child_of(t.pid)
    os.kill(child, signal.SIGSTOP)
    t.pump(0.3)
    os.kill(child, signal.SIGCONT)
    t.send("\x1b[B")
    t.wait("accesses 2/")
    t.send("q")
    assert t.end() == 0
    assert t.restored()


def test_a_lost_connection(tui: Open) -> None:
    t = tui()
    t.wait("accesses 1/")
    child = child_of(t.pid)
    os.close(t.fd)
    t.fd = os.open(os.devnull, os.O_RDWR)
    wait_gone(child)
    assert os.waitstatus_to_exitcode(os.waitpid(t.pid, 0)[1]) == 130
    t.pid = 0


@pytest.mark.parametrize(
    ("module", "name", "method", "keys"),
    [("log", "LogPane", "heading", ""), ("log", "LogPane", "move", "\x1b[B")],
    ids=["drawing", "key"],
)
def test_a_fault_of_ours(tui: Open, module: str, name: str, method: str, keys: str) -> None:
    t = tui("-c", _BROKEN.format(module=module, name=name, method=method))
    if keys:
        t.wait("accesses 1/")
        t.send(keys)
    assert t.end() == 1
    assert t.restored()
    assert "internal error (RuntimeError: a fault of ours)" in t.text
    assert "Traceback" not in t.text
