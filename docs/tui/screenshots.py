"""Makes the pictures of this folder: `python docs/tui/screenshots.py boot.wbt [other.wbt]`.

A session without a terminal is brought to interesting places, and what it would show is written as
SVG by rich.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from prompt_toolkit.styles import Style as PromptStyle
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from workbench.trace.reader import open_trace
from workbench.tui.layout import Settings
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


def main(paths: list[str]) -> None:
    """Make them all."""
    session = session_of(paths[0])
    second = session_of(paths[1]) if len(paths) > 1 else None
    view = View(session, Settings({}), None, second)
    session.set_filter("device=drive1*")
    matches = session.matches
    row = matches.before(session.log.rows)
    while row is not None and session.log.access(row).register != "queue_notify0":
        row = matches.before(row)
    session.inspected = "drive1"
    if row is not None:
        session.go_to_row(row)
        session.step(1)
    session.say("")
    view.choose_layout("3")
    session.say("")
    picture(view, "device", 140, 44)
    view.choose_layout("1")
    session.set_filter("")
    session.say("")
    picture(view, "overview", 100, 34)
    picture(view, "small", 80, 24)
    view.choose_layout("6")
    session.say("")
    picture(view, "everything", 200, 56)
    if view.comparison is not None:
        view.comparison.start()
        view.comparison.next_difference(True)
        view.choose_layout("7")
        session.say("")
        picture(view, "compare", 160, 44)


if __name__ == "__main__":
    main(sys.argv[1:])
