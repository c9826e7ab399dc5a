"""The inspector's cursor: its lines lead to memory, to accesses and to requests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.conftest import ROOT
from tests.tui.terminal import Terminal, own
from workbench.trace.reader import open_trace
from workbench.tui import commands
from workbench.tui.layout import Settings
from workbench.tui.lines import plain
from workbench.tui.panes.inspector import InspectorPane
from workbench.tui.panes.memory import MemoryPane
from workbench.tui.screen import compose
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline

DRIVERS = ROOT / "traces" / "v2-drivers.wbt"
SECOND_NOTIFIED = 20_056


@pytest.fixture(scope="module")
def drivers() -> Iterator[Session]:
    """Requests to a virtio disk and two NICs."""
    with open_trace(DRIVERS) as trace:
        session = Session(trace, lambda name, failed: Inline(failed))
        session.start()
        yield session


@pytest.fixture
def view(drivers: Session) -> View:
    """The second request of a virtio disk is about to be made."""
    made = View(drivers, Settings({}))
    drivers.inspected = "drive0"
    made.choose_layout("3")
    made.focus = "inspector"
    drivers.go(SECOND_NOTIFIED)
    compose(made, 120, 60)
    return made


def inspector(view: View) -> InspectorPane:
    pane = view.panes["inspector"]
    assert isinstance(pane, InspectorPane)
    return pane


def memory(view: View) -> MemoryPane:
    pane = view.panes["memory"]
    assert isinstance(pane, MemoryPane)
    return pane


def select(view: View, text: str) -> InspectorPane:
    """Put the cursor on the first line with a text."""
    pane = inspector(view)
    pane.edge(False)
    for _ in range(400):
        compose(view, 120, 60)
        if text in plain(pane._shown.lines[pane.cursor]):
            return pane
        view.move(1)
    raise AssertionError(f"no line has {text!r}")


def test_who_wrote_the_index_of_a_ring(view: View) -> None:
    pane = select(view, "used ring")
    assert "physical 0x104002" in pane.heading()
    pane.find_writer()
    assert "drive0 by DMA for drive0/1" in view.session.message
    assert 21 < view.session.icount < SECOND_NOTIFIED
    compose(view, 120, 60)
    assert "used ring" in plain(pane._shown.lines[pane.cursor]), "the cursor stays on its row"


def test_a_descriptor_is_shown_and_its_pointer_followed(view: View) -> None:
    select(view, "available, slot 1").enter()
    pane = memory(view)
    assert view.focus == "memory"
    assert pane.physical
    assert pane.structure is not None
    assert pane.structure.name == "virtq_desc"
    at = pane.address
    assert at is not None
    moment = view.session.moment
    assert moment is not None
    pane.enter()
    data = moment.read(at, 8, is_physical=True)
    assert pane.cursor == int.from_bytes(bytes(byte or 0 for byte in data), "little")


def test_memory_is_shown_beside_the_inspector(view: View) -> None:
    view.choose_layout("8")
    select(view, "used ring").enter()
    assert {"inspector", "memory"} <= set(view.rects) | {"memory"}
    compose(view, 120, 60)
    assert {"inspector", "memory"} <= set(view.rects)


def test_a_register_leads_to_its_last_access(view: View) -> None:
    pane = select(view, "device takes next")
    assert "drive0 queue_notify0" in pane.heading()
    pane.enter()
    assert view.session.icount == 21
    assert "QueueNotify of drive0 was written by" in view.session.message
    view.session.go(SECOND_NOTIFIED)
    compose(view, 120, 60)
    select(view, "status").find_writer()
    assert view.session.icount == 18
    compose(view, 120, 60)
    pane.find_writer()
    assert view.session.icount == 8
    view.session.go(0)
    compose(view, 120, 60)
    pane.find_writer()
    assert view.session.message == "nobody has written to drive0 device_status before"


def test_the_last_requests_lead_to_where_they_began(view: View) -> None:
    pane = select(view, "drive0/1")
    pane.find_writer()
    assert view.session.icount == 21
    assert view.session.message == "request drive0/1 begins"


def test_a_line_that_stands_for_nothing(view: View) -> None:
    pane = select(view, "broken")
    assert pane.subject() is None
    place = view.session.icount
    pane.enter()
    assert "stands for nothing" in view.session.message
    pane.find_writer()
    assert view.session.icount == place


def test_the_requests_of_all_devices(view: View) -> None:
    commands.run(view, "inspect requests")
    view.session.go(view.session.end_icount)
    compose(view, 120, 60)
    shown = "\n".join(plain(line) for line in inspector(view)._shown.lines)
    assert "net1/4" in shown
    assert "drive0/4" in shown


def test_a_click_selects_a_line_and_the_next_one_goes_there(view: View) -> None:
    compose(view, 120, 60)
    pane, rect = inspector(view), view.rects["inspector"]
    line = next(n for n, text in enumerate(pane._shown.lines) if "used ring" in plain(text))
    view.click(rect.x + 5, rect.y + 1 + line - pane.top)
    assert (view.focus, pane.cursor) == ("inspector", line)
    view.click(rect.x + 5, rect.y + 1 + line - pane.top)
    assert memory(view).cursor == 0x104002


def test_memory_follows_a_register_until_it_is_moved(view: View) -> None:
    session, pane = view.session, memory(view)

    def rsp() -> int:
        assert session.moment is not None
        return session.moment.registers["rsp"]

    session.go(0)
    compose(view, 120, 60)
    commands.run(view, "x rip+2")
    assert "rip+2 = linear" in pane.heading()
    for place in (10, 500, 20_056):
        session.go(place)
        compose(view, 120, 60)
        assert session.moment is not None
        assert pane.cursor == session.moment.registers["rip"] + 2
    view.focus = "memory"
    view.move(1)
    stays = pane.cursor
    session.go(10)
    compose(view, 120, 60)
    assert pane.cursor == stays
    commands.run(view, "x rsp")
    assert pane.cursor == rsp()
    commands.run(view, "x 0x103000 physical")
    session.go(500)
    compose(view, 120, 60)
    assert pane.cursor == 0x103000


def test_in_a_terminal(tmp_path: Path) -> None:
    """From a queue's page to who wrote its index, and from a descriptor to its buffer."""
    trace = str(shutil.copy(DRIVERS, tmp_path / "drivers.wbt"))
    argv = [sys.executable, "-m", "workbench", "tui", trace, "--at", str(SECOND_NOTIFIED)]
    t = Terminal(argv, own(tmp_path), 120, 50)
    try:
        t.wait("accesses")
        t.send("3:inspect drive0\r")
        t.wait("device takes next +1")
        t.send("\t\t")
        for _ in range(40):
            if "physical 0x104002" in t.text:
                break
            t.send("j")
        t.send("\r")
        t.wait("memory  physical 0x104002")
        t.send("w")
        t.wait("0x104002 was written by drive0 by DMA for drive0/1")
        t.send("q")
        assert t.end() == 0
        assert t.restored()
    finally:
        t.close()
