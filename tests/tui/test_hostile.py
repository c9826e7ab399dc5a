"""What a guest or a trace says never reaches the terminal as a control sequence."""

from pathlib import Path

import pytest

from tests.trace.test_live import recording
from workbench.trace.live import LiveTimeline
from workbench.trace.reader import open_trace
from workbench.tui.layout import LAYOUTS, Settings
from workbench.tui.live import Live
from workbench.tui.screen import compose
from workbench.tui.session import Session
from workbench.tui.view import View
from workbench.tui.worker import Inline

HOSTILE = (
    b"\x1b]52;c;ZXZpbA==\x07 \x1b[2J\x1b]0;title\x1b\\ \x9b31m \x1bP+q\x1b\\ \x07\x08\x0e\x7f"
    b"\xc2\x9b5n \xe2\x80\xae\xef\xbb\xbf \x1b[6n \x1b" + bytes(range(256))
)


def shown(view: View) -> str:
    return "".join(text for line in compose(view, 120, 40) for _, text in line)


@pytest.mark.parametrize("key", [key for key in LAYOUTS if key != "7"])
def test_console_and_names(session: Session, view: View, key: str) -> None:
    events = session.events
    events.console[:] = HOSTILE * 20
    events._console_icounts[:] = events._console_icounts[:1]
    events._console_ends[:] = events._console_ends[:1]
    events._console_ends[0] = len(events.console)
    session.go(session.end_icount)
    block = session.log.block(session.row // 4096)
    block.devices[:] = [HOSTILE.decode("latin-1")] * len(block.devices)
    block.registers = None
    session.density.counts[HOSTILE.decode("latin-1")] = next(iter(session.density.counts.values()))
    session.say(HOSTILE.decode("latin-1"))
    session.trace.path = HOSTILE.decode("latin-1")
    view.choose_layout(key)
    session.say(HOSTILE.decode("latin-1"))
    assert shown(view).isprintable()


def test_the_console_of_a_live_guest(tmp_path: Path) -> None:
    live = Live(LiveTimeline(recording(tmp_path / "live.wbt")))
    live.timeline.recording.recorder.flush()
    with open_trace(tmp_path / "live.wbt") as trace:
        session = Session(trace, lambda name, failed: Inline(failed), live=live)
        view = View(session, Settings({}))
        sink = live.timeline.recording.recorder.console_sink
        assert sink is not None
        sink("com1", HOSTILE * 5000)
        live.running = True
        assert len(live.console) <= 65536
        assert shown(view).isprintable()
        live.running = False
        live.finish()
