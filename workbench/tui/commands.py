"""The command line of the screen: what may stand behind `:`, with completion."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench import inspect as inspectors
from workbench.errors import UsageError, WorkbenchError
from workbench.trace import position as positions
from workbench.tui import language, layout
from workbench.tui.panes.memory import MemoryPane

if TYPE_CHECKING:
    from workbench.tui.view import View

Run = Callable[["View", list[str]], None]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: how it is written, what it does."""

    usage: str
    help: str
    run: Run

    @property
    def name(self) -> str:
        """The first word."""
        return self.usage.partition(" ")[0]


def run(view: View, line: str) -> None:
    """Do what was typed; what is wrong with it becomes a message."""
    try:
        words = shlex.split(line)
        if not words:
            return
        command = BY_NAME.get(words[0])
        if command is None:
            raise UsageError(f"no command {words[0]!r}; :help lists them")
        command.run(view, words[1:])
    except (WorkbenchError, ValueError) as error:
        view.session.fail(str(error))


def number(view: View, text: str) -> int:
    """An address or a number: 0x1000, 4096, a register, a symbol."""
    moment = view.session.moment
    name = text.lstrip("$").lower()
    if moment is not None and name in moment.registers:
        return moment.registers[name]
    found = language.number(text, view.session.end_icount)
    if found is None:
        raise UsageError(f"expected a number or a register, not {text!r}")
    return found


def _go(view: View, args: list[str]) -> None:
    if not args:
        raise UsageError(f"expected: go {positions.FORMS}")
    session = view.session
    session.go(positions.parse(" ".join(args), session.trace, session.bookmarks.places))


def _x(view: View, args: list[str]) -> None:
    if not 1 <= len(args) <= 2 or (len(args) == 2 and args[1] != "physical"):
        raise UsageError("expected: x ADDRESS [physical]")
    pane = view.panes["memory"]
    assert isinstance(pane, MemoryPane)
    pane.go(number(view, args[0]), len(args) == 2)
    view.show("memory")


def _filter(view: View, args: list[str]) -> None:
    view.session.set_filter(" ".join(args))


def _writer(view: View, args: list[str]) -> None:
    if not 1 <= len(args) <= 2:
        raise UsageError("expected: writer ADDRESS [BYTES]")
    length = number(view, args[1]) if len(args) == 2 else 1
    if not 0 < length <= 4096:
        raise UsageError(f"expected 1 to 4096 bytes, not {length}")
    view.session.find_writer(number(view, args[0]), length)


def _break(view: View, args: list[str]) -> None:
    if len(args) != 1:
        raise UsageError("expected: break ADDRESS")
    view.session.toggle_breakpoint(number(view, args[0]))


def _bookmark(view: View, args: list[str]) -> None:
    if len(args) != 1:
        raise UsageError("expected: bookmark NAME")
    view.session.set_bookmark(args[0])


def _show(view: View, args: list[str]) -> None:
    if len(args) != 1:
        raise UsageError(f"expected: show {'|'.join(view.panes)}")
    view.show(args[0])


def _inspect(view: View, args: list[str]) -> None:
    machine = None if view.session.moment is None else view.session.moment.machine
    if len(args) != 1:
        raise UsageError("expected: inspect NAME")
    # While the machine is on its way the name is taken as it is.
    name = args[0] if machine is None else inspectors.resolve(machine, args[0])
    view.session.inspected = name
    if "inspector" not in layout.panes(view.tree):
        view.choose_layout("3")


def _stop(view: View, args: list[str]) -> None:
    if args:
        raise UsageError("expected: stop")
    view.session.stop_recording()


def _type(view: View, args: list[str]) -> None:
    live = view.session.live
    if live is None or live.over:
        raise UsageError("expected a recording that goes on: workbench tui --record makes one")
    live.type(" ".join(args).encode() + b"\r")


def _first(view: View, args: list[str]) -> None:
    view.compare(lambda comparison: comparison.first_instruction())


def _theme(view: View, args: list[str]) -> None:
    if len(args) != 1 or args[0] not in ("auto", "dark", "light", "mono"):
        raise UsageError("expected: theme auto, dark, light or mono")
    view.theme = args[0]


def _when(view: View, args: list[str]) -> None:
    session = view.session
    time = "" if session.moment is None else f", {session.moment.time_ps / 1e12:.9f} s"
    session.say(f"instruction {session.icount:,} of {session.end_icount:,}{time}")


def _help(view: View, args: list[str]) -> None:
    view.overlay, view.overlay_top = "help", 0


def _quit(view: View, args: list[str]) -> None:
    view.quitting = True


COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "go POSITION", "go to a count, 1.2G, 50%, access:N, request:ide0/17, bookmark:NAME", _go
    ),
    Command("seek POSITION", "the same", _go),
    Command("filter EXPRESSION", "show only accesses that match; without one, all", _filter),
    Command("x ADDRESS [physical]", "show memory at an address or a register", _x),
    Command("writer ADDRESS [BYTES]", "go to who wrote there last: processor or device", _writer),
    Command("break ADDRESS", "breakpoint on or off", _break),
    Command("bookmark NAME", "name this position", _bookmark),
    Command("show PANE", "put a pane where the focus is", _show),
    Command("inspect NAME", "look into a device, pci, irq, timers, cpu, tlb", _inspect),
    Command("stop", "end the recording and close the trace", _stop),
    Command("type TEXT", "type a line into the guest's console", _type),
    Command("first", "to the first instruction that differs between two traces", _first),
    Command("theme NAME", "auto, dark, light or mono", _theme),
    Command("when", "position and guest time", _when),
    Command("help", "keys and commands", _help),
    Command("quit", "leave", _quit),
)
BY_NAME: Final = {command.name: command for command in COMMANDS}


def completions(view: View, line: str) -> list[tuple[str, int, str]]:
    """What may come next: (text, how far back it begins, what it is)."""
    name, space, rest = line.partition(" ")
    if not space:
        return [(c.name, -len(name), c.help) for c in COMMANDS if c.name.startswith(name)]
    if name == "filter":
        return filter_completions(view, rest)
    words = {
        "show": list(view.panes),
        "inspect": view.inspectors(),
        "theme": ["auto", "dark", "light", "mono"],
        "go": [
            "start",
            "end",
            "access:",
            "request:",
            *(f"bookmark:{b}" for b in view.session.bookmarks.places),
        ],
        "x": sorted(view.session.moment.registers) if view.session.moment else [],
    }.get(name, [])
    return [(word, -len(rest), "") for word in words if word.startswith(rest)]


def filter_completions(view: View, text: str) -> list[tuple[str, int, str]]:
    """What may come next in a filter."""
    session = view.session
    names = {
        "device": [name for name in session.density.devices() if name[:1] != "("],
        "register": session.register_names(),
        "kind": ["pio", "mmio", "cfg"],
        "function": session.seen_functions(),
    }
    return language.completions(text, names)
