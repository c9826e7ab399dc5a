"""The `monitor` commands: what gdb has no words for."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from workbench import dump
from workbench.errors import WorkbenchError
from workbench.gdbstub import watching
from workbench.gdbstub.commands import Command, Wrong, complete, number, overview, usage
from workbench.gdbstub.devices import Devices
from workbench.gdbstub.memory import physical
from workbench.gdbstub.registers import ARCHITECTURES
from workbench.gdbstub.target import Target
from workbench.inspect.cpu import mode_text
from workbench.trace.bookmarks import Bookmarks
from workbench.trace.decode import Decoder
from workbench.trace.position import FORMS, parse
from workbench.trace.timeline import Timeline

_MOST_LINES = 1000


class Session(Protocol):
    """What a command may change of the stub."""

    architecture: str


class Monitor:
    """Runs one command line, gives its text."""

    def __init__(self, target: Target, session: Session | None = None) -> None:
        """`session` is the stub whose description of registers can be chosen."""
        self._target = target
        self._session = session
        self.note = ""
        """Something that the user should know; `when` says it."""
        self._commands: dict[str, Command] = {
            **Devices(target).commands(),
            "when": Command(("when",), "the position in the recording", self._when),
            "seek": Command(
                ("seek POSITION",),
                "go to a position, without regard to breakpoints\n"
                f"A position is {FORMS}.",
                self._seek,
                self._position_words,
                moves=True,
            ),
            "checkpoint": Command(("checkpoint",), "the checkpoints", self._checkpoint),
            "bookmark": Command(
                ("bookmark NAME", "bookmark -d NAME"),
                "give this place a name, which is kept beside the trace; -d forgets it",
                self._bookmark,
                lambda given: self._places() if given == ["-d"] else (),
            ),
            "bookmarks": Command(("bookmarks",), "the places that have names", self._bookmarks),
            "log": Command(
                ("log [N]",),
                "the last N accesses before this position (default: 10, at most 1000)",
                self._log,
            ),
            "watch": Command(
                watching.USAGE,
                watching.HELP,
                self._watch,
                lambda given: watching.watch_words(self._target.machine, given),
            ),
            "unwatch": Command(("unwatch",), "forget what is watched", self._unwatch),
            "writer": Command(
                ("writer ADDRESS [BYTES]",),
                "who wrote there last: processor or device",
                self._writer,
            ),
            "drop": Command(
                ("drop",),
                "leave a diversion (after registers or memory were written)",
                self._drop,
                moves=True,
            ),
            "dump": Command(
                ("dump FILE [paging|compress]",),
                "write memory and registers to a new file, as 'workbench dump' does\n"
                "paging: linear addresses, for gdb; compress: kdump's form, for crash and drgn",
                self._dump,
                lambda given: ("paging", "compress") if len(given) == 1 else (),
            ),
            "architecture": Command(
                ("architecture [NAME]",),
                "as what gdb sees the processor: auto, i386:x86-64, i386 or i8086\n"
                "It counts when gdb takes a description: when it connects, and after 'unset tdesc"
                " filename';\nwb-arch does both. auto: by the mode that the processor is in.",
                self._architecture,
                lambda given: () if given else ARCHITECTURES,
            ),
            "complete": Command(
                ("complete TEXT",), "what the last word of a command may become", self._complete
            ),
            "help": Command(
                ("help [COMMAND]",), "this text, or about one command", self._help,
                lambda given: () if given else self._commands,
            ),
        }  # fmt: skip

    def run(self, line: str) -> str:
        """Run a command; errors are text too."""
        try:
            if line.startswith("complete "):
                return self._complete([line.removeprefix("complete ")])
            words = _words(line) or ["help"]
            command = self._commands.get(words[0])
            if command is None:
                raise Wrong(f"no command {words[0]!r}; try: monitor help")
            return command.run(words[1:]).rstrip("\n") + "\n"
        except (Wrong, WorkbenchError, ValueError) as error:
            return f"{error}\n"

    def _help(self, args: list[str]) -> str:
        return usage(self._commands, args[0]) if args else overview(self._commands)

    def _complete(self, args: list[str]) -> str:
        return "".join(f"{word}\n" for word in complete(self._commands, args[0] if args else ""))

    def _architecture(self, args: list[str]) -> str:
        session = self._session
        if session is None or len(args) > 1 or (args and args[0] not in ARCHITECTURES):
            raise Wrong(f"expected one of {', '.join(ARCHITECTURES)}")
        if args:
            session.architecture = args[0]
        return f"{session.architecture}; the processor is in {mode_text(self._target.machine.cpu)}"

    # Watches.

    def _watch(self, args: list[str]) -> str:
        timeline = self._timeline()
        if not args:
            return "\n".join(w.text for w in timeline.device_watches) or "nothing is watched"
        watch = watching.parse_watch(self._target.machine, args)
        timeline.set_device_watches([*timeline.device_watches, watch])
        return f"watching {watch.text}"

    def _unwatch(self, args: list[str]) -> str:
        timeline = self._timeline()
        count = len(timeline.device_watches)
        timeline.set_device_watches([])
        return f"{count} forgotten"

    # Time.

    def _timeline(self) -> Timeline:
        timeline = self._target.timeline
        if timeline is None:
            raise Wrong("this needs a recording: the machine runs live")
        return timeline

    def _when(self, args: list[str]) -> str:
        machine = self._target.machine
        text = f"instruction {machine.clock.icount:,}, {machine.clock.now_ps / 1e12:.9f} s"
        timeline = self._target.timeline
        if timeline is not None:
            text += f" of {timeline.end_icount:,}"
            if timeline.present:
                text += f" ({timeline.present})"
            if timeline.diverted is not None:
                text += f"; a diversion since {timeline.diverted:,}"
        if self.note:
            text += f"\n{self.note}"
        return text

    def _seek(self, args: list[str]) -> str:
        timeline = self._timeline()
        if not args:
            raise Wrong(f"expected: seek POSITION, which is {FORMS}")
        timeline.seek(parse(" ".join(args), timeline.trace, self._places()))
        return self._when([])

    def _position_words(self, given: list[str]) -> Iterable[str]:
        fixed = ["start", "end", "access:", "request:"]
        return () if given else [*fixed, *(f"bookmark:{name}" for name in self._places())]

    def _places(self) -> dict[str, int]:
        timeline = self._target.timeline
        return {} if timeline is None else Bookmarks(timeline.trace.path).places

    def _bookmark(self, args: list[str]) -> str:
        timeline = self._timeline()
        marks = Bookmarks(timeline.trace.path)
        match args:
            case ["-d", name]:
                marks.drop(name)
                return f"{name} is forgotten"
            case [name] if not name.startswith("-"):
                if timeline.diverted is not None:
                    raise Wrong("a diversion cannot have bookmarks: say monitor drop first")
                marks.set(name, timeline.icount)
                return f"{name} is instruction {timeline.icount:,}"
        raise Wrong("expected: bookmark NAME or bookmark -d NAME")

    def _bookmarks(self, args: list[str]) -> str:
        self._timeline()
        places = self._places()
        return "\n".join(f"{at:>16,}  {name}" for name, at in places.items()) or "there are none"

    def _checkpoint(self, args: list[str]) -> str:
        return "\n".join(f"{icount:,}" for icount in self._timeline().checkpoints)

    def _drop(self, args: list[str]) -> str:
        self._timeline().drop_diversion()
        return self._when([])

    def _dump(self, args: list[str]) -> str:
        match args:
            case [path] | [path, "paging" | "compress"] if path:
                # Who is connected may be anybody: nothing that is there is overwritten.
                form, machine = args[1:], self._target.machine
                return dump.write(
                    machine, path, paging="paging" in form, compress="compress" in form, new=True
                ).text
        raise Wrong("expected: dump FILE [paging|compress]")

    def _log(self, args: list[str]) -> str:
        count = number(args[0]) if args else 10
        if not 1 <= count <= _MOST_LINES:
            raise Wrong(f"expected 1 to {_MOST_LINES} lines, not {count}")
        return "\n".join(_log_lines(self._timeline(), count)) or "no access before this point"

    def _writer(self, args: list[str]) -> str:
        if not 1 <= len(args) <= 2:
            raise Wrong("expected: writer ADDRESS [BYTES]")
        timeline = self._timeline()
        address, length = number(args[0]), number(args[1]) if len(args) == 2 else 1
        if not 0 < length <= 4096:
            raise Wrong(f"expected 1 to 4096 bytes, not {length}")
        gpa = physical(self._target.machine.cpu, address)
        writer = timeline.last_writer(address, length, gpa)
        if writer is None:
            return "nobody, since the start"
        who = f"{writer.device} by DMA" if writer.device else f"the processor at PC {writer.pc:#x}"
        who += f" for {writer.request}" * bool(writer.request)
        return f"{who}, instruction {writer.icount:,}"


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise Wrong(f"{str(error).lower()} in {line!r:.80}") from None


def _log_lines(timeline: Timeline, count: int) -> list[str]:
    """The last accesses before a position, decoded as `workbench log` does it: all of those before
    are, for one may select what another means.
    """
    names = ("icount", "pc", "kind", "device", "offset", "size", "value", "write")
    decode = Decoder(timeline.trace.header.machine).decode
    lines: deque[str] = deque(maxlen=count)
    number = 0
    for batch in timeline.trace.batches("accesses", names):
        columns = [batch[name].to_pylist() for name in names]
        for icount, pc, kind, device, offset, size, value, write in zip(*columns, strict=True):
            if icount >= timeline.icount:
                return list(lines)
            found = decode(kind, device, offset, size, value, write)
            dot = "" if found.name.startswith("+") else "."
            where = f"{device or kind}{dot}{found.name}"
            arrow = "<-" if write else "->"
            lines.append(
                f"{number:>8} {icount:>14,} {pc:#018x} {where:<22} {size} {arrow} {value:#x}"
                f" {found.meaning}".rstrip()
            )
            number += 1
    return list(lines)
