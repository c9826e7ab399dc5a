"""Makes the pictures of this folder: `python docs/tui/screenshots.py boot.wbt other.wbt`.

A session without a terminal is brought to interesting places, and what it would show is written as
SVG by rich. The traces are boots with a virtio disk, which the second reads a little more of. For
the picture of a recording a guest of `python -m guests` is started.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

from prompt_toolkit.styles import Style as PromptStyle
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import guests
from workbench.core.config import MachineConfig
from workbench.trace.guest import Guest
from workbench.trace.live import LiveTimeline
from workbench.trace.reader import open_trace
from workbench.trace.session import Recording
from workbench.tui import commands
from workbench.tui.layout import Settings
from workbench.tui.live import Live
from workbench.tui.screen import compose
from workbench.tui.session import Session
from workbench.tui.style import style
from workbench.tui.view import View
from workbench.tui.worker import Inline

FOLDER = Path(__file__).parent


def _rich(names: str, theme: PromptStyle) -> str:
    attrs = theme.get_attrs_for_style_str(names)
    words = [word for word in ("bold", "underline", "reverse") if getattr(attrs, word)]
    if attrs.color:
        words.append(f"#{attrs.color}")
    if attrs.bgcolor:
        words.append(f"on #{attrs.bgcolor}")
    return " ".join(words)


def picture(view: View, name: str, width: int, height: int) -> None:
    """Write one."""
    theme = style("dark")
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True,
                      color_system="truecolor", legacy_windows=False)  # fmt: skip
    view.session.say("") if view.session.message.startswith("layout") else None
    compose(view, width, height)  # what it needs is looked for beside the screen
    for line in compose(view, width, height):
        text = Text(no_wrap=True, end="\n")
        for names, part in line:
            text.append(part, _rich(names, theme))
        console.print(text, soft_wrap=True, highlight=False)
    svg = console.export_svg(title=f"workbench tui: {name}", theme=MONOKAI)
    (FOLDER / f"{name}.svg").write_text(svg)
    print(f"{name}.svg {width}x{height}")


def session_of(path: str) -> Session:
    """A session that does all work at once."""
    trace = open_trace(path)
    trace.path = Path(path).name
    made = Session(trace, lambda name, failed: Inline(failed))
    made.start()
    return made


def looking(view: View) -> None:
    """One step behind a notification, in all layouts."""
    session = view.session
    session.set_filter("register=queue_notify* and device=drive*")
    matches = session.matches
    row = matches.before(session.log.rows)
    assert row is not None, "expected a trace with a virtio device"
    device = session.log.access(row).device
    session.set_filter(f"device={device}*")
    session.inspected = device
    session.go_to_row(row)
    session.travel.step(1)
    view.choose_layout("3")
    inspector = view.panes["inspector"]
    view.focus = "inspector"
    compose(view, 140, 44)
    while "queue_notify" not in inspector.heading():
        inspector.move(1)
    picture(view, "device", 140, 44)
    view.focus = "log"
    session.set_filter("")
    view.choose_layout("1")
    picture(view, "overview", 120, 36)
    picture(view, "small", 80, 24)
    view.choose_layout("2")
    picture(view, "code", 140, 40)
    session.travel.next_event("interrupts", False)
    commands.run(view, "as idt")
    view.choose_layout("4")
    picture(view, "memory", 110, 30)
    commands.run(view, "as bytes rsp")
    view.choose_layout("6")
    picture(view, "everything", 200, 56)
    view.overlay = "help"
    picture(view, "keys", 180, 48)
    view.overlay = ""


def comparing(view: View) -> None:
    """The first difference of two traces."""
    assert view.comparison is not None
    view.comparison.start()
    view.comparison.next_difference(True)
    view.choose_layout("7")
    picture(view, "compare", 150, 40)


def recording(folder: Path) -> None:
    """A guest, paused after somebody has typed."""
    files = guests.ensure("cloud")
    config = MachineConfig(ram_bytes=128 << 20, rtc_epoch_s=1_767_225_600, seed=1)
    guest = Guest.from_files(str(files.kernel), str(files.images["shell"]), "console=ttyS0 quiet")
    live = Live(LiveTimeline(Recording(str(folder / "boot.wbt"), config.to_json(), guest)))
    live.timeline.recording.recorder.flush()
    with open_trace(folder / "boot.wbt") as trace:
        trace.path = "boot.wbt"
        session = Session(trace, lambda name, failed: Inline(failed), live=live)
        session.driver.timeline = live.timeline
        for typed in (b"", b"cat /proc/cmdline\r"):
            live.type(typed)
            end = time.monotonic() + 15
            session.driver.move(
                "", lambda _, poll, end=end: live.go(lambda: time.monotonic() > end)
            )
        view = View(session, Settings({}))
        picture(view, "recording", 120, 32)
        live.finish()


def main(paths: list[str]) -> None:
    """Make them all."""
    view = View(session_of(paths[0]), Settings({}), None, session_of(paths[1]))
    looking(view)
    comparing(view)
    with tempfile.TemporaryDirectory() as folder:
        recording(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
