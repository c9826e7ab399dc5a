"""A recording that goes on, on screen: the tables grow, moves go back and on, nothing changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.trace import ata_guest
from tests.trace.test_boot import Guests
from tests.trace.test_live import recording
from tests.tui.terminal import Terminal
from workbench.trace import symbols
from workbench.trace.live import LiveTimeline
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.tui.keys import KEYS
from workbench.tui.layout import Settings
from workbench.tui.lines import plain
from workbench.tui.live import Live
from workbench.tui.log import AccessLog
from workbench.tui.screen import compose, status
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline, Job

LONG = 90


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    path = tmp_path / "live.wbt"
    live = Live(LiveTimeline(recording(path)))
    live.timeline.recording.recorder.flush()
    with open_trace(path) as trace:
        made = Session(trace, lambda name, failed: Inline(failed), live=live)
        yield made
        live.finish()


def test_the_log_grows_and_goes_back(session: Session, tmp_path: Path) -> None:
    live = session.live
    assert live is not None
    timeline = live.timeline
    session.driver.timeline = timeline
    session.set_filter("device=com1")
    seen = []
    for stop in (15_000, 18_000, 50_000, 54_000):
        session.driver.move("running", lambda t, poll, stop=stop: t.go(poll, stop).text)
        assert session.icount == session.end_icount == timeline.end_icount >= stop
        seen.append((session.log.rows, session.matches.known, len(session.events.console)))
        session.travel.step(-5)
        assert session.icount == timeline.end_icount - 5
        assert session.moment is not None
        assert not timeline.is_live
    assert seen == sorted(set(seen))
    session.travel.run(True)
    assert "the guest has come to its end" in session.message
    view = View(session, Settings({}))
    assert all(sum(len(t) for _, t in line) == 120 for line in compose(view, 120, 30))
    session.stop_recording()
    assert "events recorded" in session.message
    whole = AccessLog(session.trace)
    whole.index(lambda: False)
    assert session.log.rows == whole.rows
    rows = range(whole.rows)
    assert [session.log.access(row) for row in rows] == [whole.access(row) for row in rows]
    assert sum(int(held.sum()) for held in session.density.counts.values()) == whole.rows
    assert bytes(session.events.console) == session.trace.console_bytes()
    with open_trace(tmp_path / "live.wbt") as again:
        assert Replay(again).run().identical


def test_escape_is_answered_before_the_guest_has_paused(session: Session) -> None:
    live, view = session.live, View(session, Settings({}))
    assert live is not None
    session.driver.timeline = live.timeline
    live.running = True
    session.machine_jobs.job = Job("running", lambda job: None, lambda _: None)
    assert "recording" in plain(status(view, 80))
    view.cancel()
    assert "pausing" in plain(status(view, 80))


@pytest.mark.guest
@pytest.mark.slow
def test_record_pause_type_go_back_go_on_stop(guest: Guests, tmp_path: Path) -> None:
    files = guest("cloud")
    variables = environment(
        TERM="xterm-256color", XDG_CONFIG_HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path)
    )
    argv = [
        sys.executable, "-m", "workbench", "tui", "--record", "--kernel", str(files.kernel),
        "--initrd", str(files.images["shell"]), "--append", "console=ttyS0 quiet", "-m", "128",
        "-o", str(tmp_path / "live.wbt"),
    ]  # fmt: skip
    t = Terminal(argv, variables, 110, 32)
    try:
        t.wait("recording", LONG)
        t.wait(r"/root # *\n", LONG)
        t.send("e")
        t.wait("the keys go to the guest")
        t.send("echo li''ve\r")
        t.wait(r"\nlive *\n", LONG)
        t.send("\x1d\x1b")
        t.wait("paused: c goes on", LONG)
        t.send("A")
        t.wait(r"\n> *[\d,]+ ", LONG)
        t.send("c")
        t.wait("recording …", LONG)
        t.send("e")
        t.send("echo ag''ain\r")
        t.wait(r"\nagain *\n", LONG)
        t.send("\x1d:stop\r")
        t.wait(r"live.wbt: [\d,]+", LONG)
        t.send("q")
        assert t.end() == 0
        assert t.restored()
    finally:
        t.close()
    with open_trace(tmp_path / "live.wbt") as trace:
        assert trace.closed
        assert Replay(trace).run().identical


def test_it_records_on_until_each_request_of_a_disk(tmp_path: Path) -> None:
    """`r` at the present stops at every ATA command, before it, with its inspector at hand."""
    path = tmp_path / "ata.wbt"
    live = Live(LiveTimeline(ata_guest.recording(path)))
    live.timeline.recording.recorder.flush()
    with open_trace(path) as trace:
        session = Session(trace, lambda name, failed: Inline(failed), live=live)
        session.driver.built(live.timeline)
        view = View(session, Settings({}))
        session.inspected = "ide0"
        view.choose_layout("3")
        (key,) = (key for key in KEYS if key.shown == "r")
        stops = []
        for number in range(3):
            key.run(view)
            assert session.message == "request: c records on"
            stops.append(session.icount)
            compose(view, 120, 100)
            view.focus = "inspector"
            view.pane.edge(True)
            shown = "\n".join(plain(line) for line in compose(view, 120, 100))
            assert f"ide0/{number + 1}  " not in shown, "it has not begun"
            assert (f"ide0/{number}  " in shown) == (number > 0)
        key.run(view)
        assert "the guest has come to its end" in session.message
        live.finish()
        trace.refresh()
        begun = [row["icount"] for row in trace.requests.to_pylist() if row["phase"] == "begin"]
    assert stops == begun
    with open_trace(path) as again:
        assert Replay(again).run().identical


def everything(tmp_path: Path) -> Session:
    """The demo as it is recorded without a stop."""
    path = tmp_path / "whole.wbt"
    recording(path).run()
    made = Session(open_trace(path), lambda name, failed: Inline(failed))
    made.start()
    return made


@pytest.mark.parametrize(
    "key", ["a", "r", "i", "register=CW and fields=*", "function=putc*", "count>20000 and row>700"],
)  # fmt: skip
def test_it_stops_where_the_same_moves_stop_in_the_past(
    session: Session, tmp_path: Path, key: str
) -> None:
    whole, live = everything(tmp_path), session.live
    assert live is not None
    session.driver.built(live.timeline)
    whole.go(0)
    seen = 0
    for made in (whole, session):
        made.names.learn(symbols.of_trace(whole.trace))
        if len(key) > 1:
            made.set_filter(key)
    for _ in range(3):
        for made in (whole, session):
            match key:
                case "a":
                    made.travel.next_access(True, False)
                case "r" | "i":
                    made.travel.next_event("requests" if key == "r" else "interrupts", True)
                case _:
                    made.travel.next_access(True, True)
        if whole.message.startswith("there is no"):
            assert "the guest has come to its end" in session.message
            break
        seen += 1
        assert session.icount == whole.icount
        assert live.timeline.icount == session.icount
        # The present is just behind it.
        assert session.icount < live.timeline.end_icount <= session.icount + 100
        assert not live.running
        assert live.awaited is None
    assert seen or key == "r"
    session.travel.run(True)
    session.stop_recording()
    with open_trace(tmp_path / "live.wbt") as again:
        assert Replay(again).run().identical
    for column in ("icount", "pc", "value"):
        held = [made.trace.accesses[column].to_pylist() for made in (whole, session)]
        assert held[0] == held[1]
    whole.trace.close()
