"""The real application in a terminal, on the demo's trace."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import command, environment
from tests.tui.conftest import DEMO, ROOT
from tests.tui.terminal import Terminal, own
from workbench.trace.reader import open_trace

Open = Callable[..., Terminal]


@pytest.fixture
def tui(tmp_path: Path) -> Iterator[Open]:
    """Start the application; its settings are in an empty folder."""
    opened = []

    def start(*args: str, columns: int = 80, rows: int = 24, **more: str) -> Terminal:
        variables = own(tmp_path, **more)
        argv = [sys.executable, "-m", "workbench", "tui", *args]
        opened.append(Terminal(argv, variables, columns, rows))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


@pytest.fixture
def demo(tmp_path: Path) -> str:
    return str(shutil.copy(DEMO, tmp_path / "demo.wbt"))


def test_open_filter_move_resize_quit(tui: Open, demo: str) -> None:
    t = tui(demo)
    t.wait("accesses 1/1,935")
    t.wait("rbx 0")
    t.send("/device=pit and write\r")
    t.wait("of 1,935 accesses match")
    t.send("n")
    t.wait(r"> *[\d,]+ pit +CW")
    t.resize(130, 40)
    t.wait(r"r15 ")
    t.send("?")
    t.wait("step an instruction")
    t.send("\x1b")
    t.send(":go 50%\r")
    t.wait(r"50\.00 %")
    t.send(":nonsense\r")
    t.wait("no command 'nonsense'; :help lists them")
    t.send("s")
    t.wait("2,912,451  . help")
    assert "nonsense" not in t.text
    t.send("S")
    t.wait("2,912,450  . help")
    t.send("y")
    t.wait(r"--at 2912450")
    assert b"\x1b]52;c;" in t.raw
    t.send("q")
    assert t.end() == 0
    assert t.restored()


def test_without_colour(tui: Open, demo: str) -> None:
    t = tui(demo, NO_COLOR="1")
    t.wait("rbx 0")
    assert not re.search(rb"\x1b\[[0-9;]*[34]8;|\x1b\[[0-9;]*3[1-7]m", t.raw)
    t.send("q")
    assert t.end() == 0


@pytest.mark.parametrize(("term", "colours"), [("vt100", False), ("linux", True)])
def test_on_terminals_with_few_colours(tui: Open, demo: str, term: str, colours: bool) -> None:
    t = tui(demo, TERM=term)
    t.wait("accesses 1/1,935")
    t.wait("rbx 0")
    t.send("a")
    t.wait("> *13,638 com1")
    assert not re.search(rb"\x1b\[[0-9;]*[34]8;", t.raw)
    assert bool(re.search(rb"\x1b\[[0-9;]*3[1-7]m", t.raw)) == colours
    t.send("q")
    assert t.end() == 0
    assert t.restored()


def test_the_mouse(tui: Open, demo: str) -> None:
    def press(x: int, y: int, button: int = 0) -> None:
        """In the encoding that terminals are asked for (SGR)."""
        t.send(f"\x1b[<{button};{x + 1};{y + 1}M\x1b[<{button};{x + 1};{y + 1}m")

    def line_of(pattern: str) -> int:
        return next(n for n, line in enumerate(t.text.split("\n")) if re.search(pattern, line))

    t = tui(demo, columns=100, rows=40)
    t.wait("rbx 0")
    row = line_of("13,647 ")
    press(30, row)
    t.wait("accesses 4/")
    assert "instruction 0 of" in t.text, "it is selected; one has not gone there"
    press(30, row)
    t.wait("instruction 13,647 of")
    press(30, row, button=65)
    t.wait("accesses 7/")
    press(57, 2)
    t.wait("instruction 2,9[0-9,]+ of")
    press(80, line_of("─ registers") + 2)
    t.send("z")
    t.wait("^─ registers")
    t.send("zq")
    assert t.end() == 0
    assert t.restored()


@pytest.mark.parametrize(
    "content", ["{", '{"version": 9}', None], ids=["cut", "of another version", "a directory"]
)
def test_broken_settings_are_no_reason_to_show_nothing(
    tui: Open, demo: str, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "workbench" / "tui.json"
    path.mkdir(parents=True)
    if content is not None:
        path.rmdir()
        path.write_text(content)
    t = tui(demo, columns=200)
    t.wait("tui.json: .*; the layouts are as they came")
    t.send("q")
    assert t.end() == 0


def test_a_cut_trace_is_shown_as_far_as_it_goes(tui: Open, demo: str) -> None:
    path = Path(demo)
    path.write_bytes(path.read_bytes()[:-2000])
    t = tui(demo, columns=250)
    t.wait("was not closed: it is shown as far as it is whole", 20)
    t.send("q")
    assert t.end() == 0


def test_a_machine_that_cannot_be_made(tui: Open, demo: str) -> None:
    """The log is there all the same; the panes of the machine say why they are empty."""
    with open_trace(demo) as trace:
        (image,) = trace.chunks(b"BLOB")
    path = Path(demo)
    data = bytearray(path.read_bytes())
    data[image.offset + 60] ^= 1
    path.write_bytes(data)
    t = tui(demo, columns=250)
    t.wait("there is no machine; starting the machine: ", 20)
    t.wait("chunk 1 .BLOB. is damaged: wrong checksum", 20)
    t.send("a")
    t.wait("instruction 13,638 of", 20)
    t.wait("there is no machine", 20)
    t.send("q")
    assert t.end() == 0
    assert t.restored()


def test_a_filter_that_makes_no_sense(tui: Open, demo: str) -> None:
    t = tui(demo, "--filter", "nonsense=1")
    assert t.end() == 2
    assert "expected one of device" in t.text


def test_a_newcomer_gets_a_tour(tui: Open) -> None:
    t = tui()
    t.wait("tour 1/")
    t.send("t")
    t.wait("tour 2/")
    t.send("q")
    assert t.end() == 0


def test_a_pipe_is_no_terminal() -> None:
    done = subprocess.run(
        [*command(False), "tui", str(DEMO)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "expected a terminal" in done.stderr


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_tmux(demo: str, tmp_path: Path) -> None:
    def tmux(*args: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(tmp_path / "socket"), *args],
            env=own(tmp_path),
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip

    def wait(what: str) -> None:
        end = time.monotonic() + 60
        while what not in (shown := tmux("capture-pane", "-p")):
            assert time.monotonic() < end, shown
            time.sleep(0.1)

    tmux("new-session", "-d", "-x", "100", "-y", "30",
         f"{sys.executable} -m workbench tui {demo}; exec sleep 60")  # fmt: skip
    try:
        wait("rbx 0")
        tmux("send-keys", "n")
        wait("> ")
        tmux("resize-window", "-x", "140", "-y", "40")
        wait("r15 ")
        tmux("send-keys", "q")
        end = time.monotonic() + 20
        while "accesses" in tmux("capture-pane", "-p"):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        tmux("kill-server")


def test_commands_are_kept(tui: Open, demo: str) -> None:
    for first in (True, False):
        t = tui(demo)
        t.wait("accesses 1/")
        t.send(":")
        if first:
            t.send("go 50%\r")
        else:
            t.send("\x1b[A\r")
        t.wait(r"50\.00 %")
        t.send("q")
        assert t.end() == 0
