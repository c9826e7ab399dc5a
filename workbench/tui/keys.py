"""Every key, in one table: the bindings and the help are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench.tui.layout import LAYOUTS
from workbench.tui.panes.code import CodePane

if TYPE_CHECKING:
    from workbench.tui.travel import Travel
    from workbench.tui.view import View

Action = Callable[["View"], None]


@dataclass(frozen=True, slots=True)
class Key:
    """One function: the keys as prompt_toolkit calls them, as people call them, what it does."""

    keys: tuple[str, ...]
    shown: str
    group: str
    help: str
    run: Action

    def press(self, view: View) -> None:
        """What was said last is old now, unless only a cursor is moved."""
        if self.group != "panes":
            view.session.hush()
        self.run(view)


def _paused(run: Action) -> Action:
    """A recording that runs on is paused first."""

    def action(view: View) -> None:
        if not view.session.paused_for(lambda: action(view)):
            run(view)

    return action


def _breakpoint(view: View) -> None:
    code = view.panes["code"]
    assert isinstance(code, CodePane)
    address = code.selected()
    if address is not None:
        view.session.toggle_breakpoint(address)


def _bookmark(view: View) -> None:
    session = view.session
    number = 1
    while f"m{number}" in session.bookmarks.places:
        number += 1
    session.set_bookmark(f"m{number}")


def _bookmark_next(view: View) -> None:
    session = view.session
    places = sorted(session.bookmarks.places.values())
    if not places:
        session.say("there is no bookmark; m sets one")
        return
    session.go(next((p for p in places if p > session.icount), places[0]))


def _help(view: View) -> None:
    view.overlay = "" if view.overlay == "help" else "help"
    view.overlay_top = 0


def _quit(view: View) -> None:
    view.quitting = True


def _zoom(view: View) -> None:
    view.zoomed = not view.zoomed


def _pair(
    forward: str,
    back: str,
    help_text: str,
    run: Callable[[Travel, bool], None],
) -> tuple[Key, Key]:
    def way(key: str, help_text: str, is_forward: bool) -> Key:
        move = _paused(lambda view: run(view.session.travel, is_forward))
        return Key((key,), key, "moving", help_text, move)

    return way(forward, help_text, True), way(back, f"{help_text}, backwards", False)


def _layout(key: str) -> Key:
    return Key(
        (key,), key, "layout", f"layout {LAYOUTS[key][0]}", lambda view: view.choose_layout(key)
    )


KEYS: Final[tuple[Key, ...]] = (
    *_pair("s", "S", "step an instruction", lambda t, f: t.step(1 if f else -1)),
    *_pair("b", "B", "to the next basic block", lambda t, f: t.block(f)),
    *_pair("f", "F", "until the function changes", lambda t, f: t.function(f)),
    *_pair("o", "O", "step over a call", lambda t, f: t.over(f)),
    *_pair("u", "U", "up: until the function returns", lambda t, f: t.finish(f)),
    *_pair("a", "A", "to the next access", lambda t, f: t.next_access(f, False)),
    *_pair("n", "N", "to the next access that the filter matches",
           lambda t, f: t.next_access(f, True)),
    *_pair("r", "R", "to the next request", lambda t, f: t.next_event("requests", f)),
    *_pair("i", "I", "to the next interrupt", lambda t, f: t.next_event("interrupts", f)),
    Key(("c",), "c", "moving", "run to a breakpoint, or record on",
        lambda v: v.session.travel.run(True)),
    Key(("C",), "C", "moving", "run back to a breakpoint",
        _paused(lambda v: v.session.travel.run(False))),
    Key(("w",), "w", "moving", "to who wrote what is under the cursor",
        _paused(lambda v: v.pane.find_writer())),
    Key(("enter",), "Enter", "moving", "go to the row or follow the address under the cursor",
        lambda v: v.pane.enter()),
    Key(("g",), "g", "moving", "go to a count, 50%, access:N, request:ide0/17, bookmark:NAME",
        lambda v: v.ask(":", "go ")),
    Key(("[",), "[", "moving", "back to the position before the last jump",
        lambda v: v.session.back()),
    Key(("]",), "]", "moving", "forward again", lambda v: v.session.forward()),
    Key(("escape",), "Esc", "moving", "stop what runs; close help; drop the filter",
        lambda v: v.cancel()),
    Key(("c-c",), "Ctrl-C", "moving", "the same", lambda v: v.cancel()),
    Key(("e",), "e", "recording", "type into the guest's console; Ctrl-] ends that",
        lambda v: v.start_typing()),
    Key(("/",), "/", "finding", "filter of the log: device=ide0* and write and value&0x80",
        lambda v: v.ask("/", v.session.filter_text)),
    Key((":",), ":", "finding", "command line; :help lists the commands", lambda v: v.ask(":")),
    Key(("m",), "m", "finding", "bookmark this position", _bookmark),
    Key(("'",), "'", "finding", "to the next bookmark", _bookmark_next),
    Key(("x",), "x", "finding", "breakpoint at the selected instruction, on or off", _breakpoint),
    Key(("y",), "y", "finding", "copy the position, for --at", lambda v: v.copy_address()),
    Key(("d",), "d", "comparing", "to the next difference of two traces",
        lambda v: v.compare(lambda c: c.next_difference(True))),
    Key(("D",), "D", "comparing", "to the difference before",
        lambda v: v.compare(lambda c: c.next_difference(False))),
    Key(("!",), "!", "comparing", "to the first instruction that differs",
        lambda v: v.compare(lambda c: c.first_instruction())),
    Key(("up",), "Up", "panes", "up", lambda v: v.move(-1)),
    Key(("k",), "k", "panes", "up", lambda v: v.move(-1)),
    Key(("down",), "Down", "panes", "down", lambda v: v.move(1)),
    Key(("j",), "j", "panes", "down", lambda v: v.move(1)),
    Key(("left",), "Left", "panes", "left", lambda v: v.pane.sideways(-1)),
    Key(("right",), "Right", "panes", "right", lambda v: v.pane.sideways(1)),
    Key(("pageup",), "PgUp", "panes", "a page up", lambda v: v.page(-1)),
    Key(("pagedown",), "PgDn", "panes", "a page down", lambda v: v.page(1)),
    Key((" ",), "Space", "panes", "a page down", lambda v: v.page(1)),
    Key(("home",), "Home", "panes", "first line; in the time line: start",
        lambda v: v.pane.edge(False)),
    Key(("end",), "End", "panes", "last line; in the time line: end", lambda v: v.pane.edge(True)),
    Key(("tab",), "Tab", "panes", "the next pane", lambda v: v.focus_next(1)),
    Key(("s-tab",), "Shift-Tab", "panes", "the pane before", lambda v: v.focus_next(-1)),
    *(_layout(key) for key in LAYOUTS),
    Key(("p",), "p", "layout", "the next inspector", lambda v: v.next_inspector(1)),
    Key(("P",), "P", "layout", "the inspector before", lambda v: v.next_inspector(-1)),
    Key(("z",), "z", "layout", "this pane alone, and back", _zoom),
    Key(("+",), "+", "layout", "this pane higher", lambda v: v.resize(True, "rows")),
    Key(("-",), "-", "layout", "this pane lower", lambda v: v.resize(False, "rows")),
    Key((">",), ">", "layout", "this pane wider", lambda v: v.resize(True, "columns")),
    Key(("<",), "<", "layout", "this pane narrower", lambda v: v.resize(False, "columns")),
    Key(("=",), "=", "layout", "the layout as it came", lambda v: v.reset_layout()),
    Key(("c-s",), "Ctrl-S", "layout", "save layouts and theme", lambda v: v.save()),
    Key(("?",), "?", "help", "every key", _help),
    Key(("t",), "t", "help", "the tour, and its next step", lambda v: v.next_tour(1)),
    Key(("T",), "T", "help", "the step of the tour before", lambda v: v.next_tour(-1)),
    Key(("c-z",), "Ctrl-Z", "help", "back to the shell, until `fg`", lambda v: v.suspend()),
    Key(("q",), "q", "help", "quit", _quit),
)  # fmt: skip
