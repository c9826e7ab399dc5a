"""The command line of the screen: what may stand behind `:`, with completion."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench import inspect as inspectors
from workbench.errors import UsageError, WorkbenchError
from workbench.inspect.subject import of_register
from workbench.trace import position as positions
from workbench.tui import language, layout
from workbench.tui.address import number
from workbench.tui.panes.memory import MemoryPane
from workbench.tui.structures import STRUCTURES

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
    view.session.hush()
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


def _go(view: View, args: list[str]) -> None:
    if not args:
        raise UsageError(f"expected: go {positions.FORMS}")
    session = view.session

    def find() -> int | WorkbenchError:
        """A request is looked for in its table, which may be long."""
        try:
            return positions.parse(" ".join(args), session.trace, session.bookmarks.places)
        except WorkbenchError as error:
            return error

    def found(place: int | WorkbenchError) -> None:
        if isinstance(place, WorkbenchError):
            session.fail(str(place))
        else:
            session.go(place)

    session.aside.ask(find, found)


def _x(view: View, args: list[str]) -> None:
    if not 1 <= len(args) <= 2 or (len(args) == 2 and args[1] != "physical"):
        raise UsageError("expected: x ADDRESS [physical]")
    pane = view.panes["memory"]
    assert isinstance(pane, MemoryPane)
    pane.show(args[0], len(args) == 2)
    view.show("memory")


_PLACES: Final = {"gdt": "gdtr", "idt": "idtr", "idt32": "idtr", "pte": "cr3", "pt_regs": "rsp"}
"""Where structures are if nothing else is said; page tables in physical memory."""


def _as(view: View, args: list[str]) -> None:
    wanted = {"bytes": None, **STRUCTURES}
    physical = args[-1:] == ["physical"]
    words = args[:-1] if physical else args
    if not 1 <= len(words) <= 2 or words[0] not in wanted:
        raise UsageError(f"expected: as {'|'.join(wanted)} [ADDRESS] [physical]")
    pane = view.panes["memory"]
    assert isinstance(pane, MemoryPane)
    pane.structure = wanted[words[0]]
    place = words[1] if len(words) == 2 else _PLACES.get(words[0], "")
    if place:
        pane.show(place, physical or place == "cr3")
    else:
        pane.show_as(pane.structure)
    view.show("memory")


_WHATS: Final = (
    "instruction", "block", "function", "over", "finish", "access", "match", "request", "interrupt",
)  # fmt: skip


def _stepping(forward: bool) -> Run:
    name = "step" if forward else "back"

    def run_it(view: View, args: list[str]) -> None:
        travel = view.session.travel
        if len(args) > 1 or not (not args or args[0] in _WHATS or args[0].isdecimal()):
            raise UsageError(f"expected: {name} {'|'.join(_WHATS)}, or {name} COUNT")
        if view.session.paused_for(lambda: run_it(view, args)):
            return
        match args[0] if args else "1":
            case "block":
                travel.block(forward)
            case "function":
                travel.function(forward)
            case "over":
                travel.over(forward)
            case "finish":
                travel.finish(forward)
            case "access" | "match" as what:
                travel.next_access(forward, what == "match")
            case "request" | "interrupt" as what:
                travel.next_event(f"{what}s", forward)
            case count:
                number = 1 if count == "instruction" else int(count[:18])
                travel.step(number if forward else -number)

    return run_it


def _run(forward: bool) -> Run:
    def run_it(view: View, args: list[str]) -> None:
        if args:
            raise UsageError("expected: run or reverse, alone")
        if not forward and view.session.paused_for(lambda: run_it(view, args)):
            return
        view.session.travel.run(forward)

    return run_it


def _layout(view: View, args: list[str]) -> None:
    by_name = {name: key for key, (name, _) in layout.LAYOUTS.items()}
    if len(args) != 1 or by_name.get(args[0], args[0]) not in layout.LAYOUTS:
        raise UsageError(f"expected: layout {'|'.join(by_name)}")
    view.choose_layout(by_name.get(args[0], args[0]))


def _breakpoints(view: View, args: list[str]) -> None:
    session = view.session
    if args == ["clear"]:
        session.breakpoints.clear()
        session.say("no breakpoints")
    elif args:
        raise UsageError("expected: breakpoints [clear]")
    else:
        places = ", ".join(session.function(at) for at in sorted(session.breakpoints))
        session.say(places or "there is no breakpoint; x and :break set one")


def _bookmarks(view: View, args: list[str]) -> None:
    session = view.session
    if len(args) == 2 and args[0] == "delete":
        session.delete_bookmark(args[1])
    elif args:
        raise UsageError("expected: bookmarks [delete NAME]")
    else:
        places = sorted(session.bookmarks.places.items(), key=lambda item: item[1])
        text = ", ".join(f"{name} {at:,}" for name, at in places)
        session.say(text or "there is no bookmark; m sets one")


def _filter(view: View, args: list[str]) -> None:
    view.session.set_filter(" ".join(args))


def _writer(view: View, args: list[str]) -> None:
    physical = args[-1:] == ["physical"]
    words = args[:-1] if physical else args
    if not 1 <= len(words) <= 2:
        raise UsageError("expected: writer ADDRESS [BYTES] [physical], or writer DEVICE REGISTER")
    if len(words) == 2 and words[0] in view.inspectors():
        view.session.travel.find_access(of_register(*words), write=True)
        return
    length = number(view.session, words[1]) if len(words) == 2 else 1
    if not 0 < length <= 4096:
        raise UsageError(f"expected 1 to 4096 bytes, not {length}")
    view.session.travel.find_writer(number(view.session, words[0]), length, physical)


def _break(view: View, args: list[str]) -> None:
    if len(args) != 1:
        raise UsageError("expected: break ADDRESS")
    view.session.toggle_breakpoint(number(view.session, args[0]))


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
    name = args[0]
    if machine is not None and name != inspectors.REQUESTS:
        name = inspectors.resolve(machine, name)
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


def _dump(view: View, args: list[str]) -> None:
    match args:
        case [path] | [path, "paging" | "compress"]:
            view.session.travel.dump(path, *args[1:])
        case _:
            raise UsageError("expected: dump FILE [paging|compress]")


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


_MOST_NAMES: Final = 50
COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "go POSITION", "go to a count, 1.2G, 50%, access:N, request:ide0/17, bookmark:NAME", _go
    ),
    Command("seek POSITION", "the same", _go),
    Command(
        "step [WHAT | COUNT]",
        "to the next block, access, request, ...; or COUNT on",
        _stepping(True),
    ),
    Command("back [WHAT | COUNT]", "the same backwards", _stepping(False)),
    Command("run", "run to a breakpoint, or record on", _run(True)),
    Command("reverse", "run back to a breakpoint", _run(False)),
    Command("filter EXPRESSION", "show only accesses that match; without one, all", _filter),
    Command("x ADDRESS [physical]", "show memory at an address; it follows a register", _x),
    Command("as STRUCTURE [ADDRESS] [physical]", "show memory as virtq_desc, prd, pte, ...", _as),
    Command(
        "writer ADDRESS [BYTES] [physical]",
        "go to who wrote there last: processor or device",
        _writer,
    ),
    Command("break ADDRESS", "breakpoint on or off", _break),
    Command("breakpoints [clear]", "all breakpoints", _breakpoints),
    Command("bookmark NAME", "name this position", _bookmark),
    Command("bookmarks [delete NAME]", "all bookmarks", _bookmarks),
    Command("layout NAME", "overview, code, device, memory, ...", _layout),
    Command("show PANE", "put a pane where the focus is", _show),
    Command("inspect NAME", "look into a device, pci, irq, timers, cpu, tlb", _inspect),
    Command("stop", "end the recording and close the trace", _stop),
    Command("type TEXT", "type a line into the guest's console", _type),
    Command("dump FILE [paging|compress]", "guest memory to a new core file", _dump),
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
        "go": [
            "start",
            "end",
            "access:",
            "request:",
            *(f"bookmark:{b}" for b in view.session.bookmarks.places),
        ],
        "as": ["bytes", *STRUCTURES],
        "step": list(_WHATS),
        "back": list(_WHATS),
        "layout": [name for name, _ in layout.LAYOUTS.values()],
        "breakpoints": ["clear"],
        "bookmarks": [f"delete {name}" for name in view.session.bookmarks.places],
        "theme": ["auto", "dark", "light", "mono"],
    }.get(name, [])
    if name == "dump" and " " in rest:
        words = [f"{rest.partition(' ')[0]} {form}" for form in ("paging", "compress")]
    if name in ("x", "break", "writer") and " " not in rest:
        words = _addresses(view, rest)
    return [(word, -len(rest), "") for word in words if word.startswith(rest)]


def _addresses(view: View, start: str) -> list[str]:
    """Registers and functions that begin so."""
    moment, table = view.session.moment, view.session.symbols
    found = [] if moment is None else sorted(moment.registers)
    if table is not None and start:
        found += table.names(start, _MOST_NAMES)
    return found


def filter_completions(view: View, text: str) -> list[tuple[str, int, str]]:
    """What may come next in a filter."""
    session = view.session
    names = {
        "device": [name for name in session.density.devices() if name[:1] != "("],
        "register": session.register_names(),
        "kind": ["pio", "mmio", "cfg"],
        "function": session.names.seen(),
    }
    return language.completions(text, names)
