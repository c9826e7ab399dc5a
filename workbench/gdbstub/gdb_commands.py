"""Commands for gdb, on a machine that workbench serves; `workbench gdb` sources this file.

It runs inside gdb, whose Python has nothing of ours: (gdb) source gdb_commands.py
"""

# mypy: allow-subclassing-any
import contextlib
import json
import shlex
import struct
import tempfile
from pathlib import Path
from typing import Any

import gdb
import gdb.unwinder  # type: ignore[import-untyped]

PIECE = 0x4000
MASK = (1 << 64) - 1
KERNEL = 1 << 63
FRAMES, MOST_FRAMES = 0x5742_0000_0000_0000, 64
LIST = FRAMES + (1 << 32)
STACK = 0x4000
KERNEL_FILE = "vmlinux"


def monitor(line: str) -> str:
    """Run a monitor command, give its text."""
    return str(gdb.execute("monitor " + line, to_string=True))


def look_again() -> None:
    """The guest is elsewhere now: forget registers, and show where it is.

    No step is a stop for gdb: -tui and whoever listens by MI look again, too.
    """
    gdb.execute("maintenance flush register-cache", to_string=True)
    with contextlib.suppress(gdb.error):
        gdb.execute("stepi 0", to_string=True)
        gdb.execute("frame")


def peek(address: int, count: int) -> bytes:
    """Read what the stub adds to the guest's memory; gdb.error or ValueError where it does not."""
    inferior = gdb.selected_inferior()
    wide = inferior.architecture().name() == "i386:x86-64"
    data = bytearray()
    while len(data) < count:
        at, size = address + len(data), min(PIECE, count - len(data))
        if wide:
            data += inferior.read_memory(at, size).tobytes()
            continue
        # gdb would cut the address to 32 bits.
        answer = inferior.connection.send_packet(f"m{at:x},{size:x}".encode())
        data += bytes.fromhex(answer.decode())
    return bytes(data)


class Frames(gdb.unwinder.Unwinder):
    """Callers in the guest's kernel by its own ORC tables, without frame pointers and debug
    information: the stub keeps the call chain in memory, at an address that the guest cannot have.
    Where there is none, and in a user's code, gdb finds callers as it always does.
    """

    def __init__(self) -> None:
        super().__init__("workbench")
        self.known: dict[tuple[int, int], Any] = {}

    def __call__(self, pending: Any) -> Any:
        """The caller of a frame, None if it is not known."""
        if pending.architecture().name() != "i386:x86-64":
            return None
        values = [pending.read_register(name) for name in ("rip", "rsp", "rbp")]
        pc, sp, _ = (int(value) & MASK for value in values)
        if pc < KERNEL:
            return None
        if pending.level() == 0:
            self.known = {}
            with contextlib.suppress(gdb.error):
                self.look()
        if (pc, sp) not in self.known:
            return None
        start, caller = self.known[pc, sp]
        same_stack = sp < caller[1] <= sp + STACK
        if same_stack and self.gdb_knows_more(pc - (pending.level() > 0)):
            return None
        # A frame's identity: what its caller's stack pointer will be, and its function.
        code, stack, _ = types = [value.type for value in values]
        identity = Identity(gdb.Value(caller[1]).cast(stack), gdb.Value(start).cast(code))
        info = pending.create_unwind_info(identity)
        for name, value, kind in zip(("rip", "rsp", "rbp"), caller, types):  # noqa: B905
            info.add_saved_register(name, gdb.Value(value).cast(kind))
        return info

    def gdb_knows_more(self, pc: int) -> bool:
        """Is there debug information, which tells all registers that a function has saved?

        It says nothing of the kernel's assembler, nor where C code changes to an interrupt's stack;
        and of a module gdb 13 finds that of .text alone.
        """
        symtab = gdb.find_pc_line(pc).symtab
        if symtab is None or (symtab.producer or "").startswith("GNU AS"):
            return False
        return GUEST.in_text(pc)

    def look(self) -> None:
        """Read the table: the number of frames, then PC, RSP, RBP and start of the function."""
        memory = gdb.selected_inferior()
        count = int.from_bytes(memory.read_memory(FRAMES, 8).tobytes(), "little")
        if not 1 < count <= MOST_FRAMES:
            return
        data = memory.read_memory(FRAMES + 8, 32 * count).tobytes()
        rows = list(struct.iter_unpack("<4Q", data))
        for (pc, sp, _, start), caller in zip(rows, rows[1:]):  # noqa: B905, RUF007
            self.known[pc, sp] = start, caller[:3]


class Identity:
    """What tells a frame from others, as gdb wants it."""

    def __init__(self, sp: Any, pc: Any) -> None:
        self.sp, self.pc = sp, pc


class Command(gdb.Command):
    """A command that is a monitor command."""

    name = ""
    before = ""
    moves = False

    def __init__(self) -> None:
        super().__init__(self.name, gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.dont_repeat()
        gdb.write(monitor(f"{self.before} {argument}".strip()))
        if self.moves:
            look_again()

    def complete(self, text: str, word: str | None) -> Any:
        whole = f"{self.before} {text}".lstrip()
        found = monitor(f"complete {whole}").split()
        begun = len(whole.rpartition(" ")[2]) - len(word or "")
        return [w[begun:] for w in found]


class Wb(Command):
    """Any monitor command, with completion: wb info irq, wb watch ide0.STATUS ..."""

    name = "wb"
    moves = True

    def invoke(self, argument: str, from_tty: bool) -> None:
        self.moves = argument.split(" ")[0] in ("seek", "drop")
        super().invoke(argument, from_tty)


class Accesses(Command):
    """The last accesses to devices before this point: wb-accesses [COUNT]"""

    name, before = "wb-accesses", "log"


class Queue(Command):
    """The rings of a device, of all without a name: wb-queue [NAME]"""

    name = "wb-queue"

    def invoke(self, argument: str, from_tty: bool) -> None:
        gdb.write(monitor(f"info {argument or 'queues'}"))

    def complete(self, text: str, word: str | None) -> Any:
        self.before = "info"
        return super().complete(text, word)


class Request(Command):
    """The last requests, or the moment at which one began: wb-request [DEVICE/NUMBER]"""

    name = "wb-request"

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument:
            gdb.write(monitor(f"seek request:{argument}"))
            look_again()
        else:
            gdb.write(monitor("info requests"))


class LastWriter(Command):
    """Who wrote there last, the processor or a device: wb-writer EXPRESSION

    A variable or another thing in memory, as in `watch`; of a number, the byte at that address.
    """

    name = "wb-writer"

    def invoke(self, argument: str, from_tty: bool) -> None:
        try:
            value = gdb.parse_and_eval(argument)
        except gdb.error as error:
            raise gdb.GdbError(str(error)) from None
        place, size = value.address, value.type.sizeof
        if place is None:
            place, size = value, 1
        found = monitor(f"writer {int(place) & MASK:#x} {size}")
        gdb.write(found)
        pc = found.partition("at PC ")[2].partition(",")[0]
        if pc:
            gdb.execute(f"info symbol {pc}")

    def complete(self, text: str, word: str | None) -> Any:
        return gdb.COMPLETE_EXPRESSION


class Seek(Command):
    """Go to a position: wb-seek 1.2G, 50%, end, access:N, request:ide0/17, bookmark:NAME"""

    name, before, moves = "wb-seek", "seek", True


class Drop(Command):
    """Leave a diversion, which began when registers or memory were written."""

    name, before, moves = "wb-drop", "drop", True


class Dump(Command):
    """Write memory and registers to a new core file: wb-dump FILE [paging|compress]

    paging: with linear addresses, for gdb; compress: kdump's form, for crash and drgn.
    """

    name = "wb-dump"

    def invoke(self, argument: str, from_tty: bool) -> None:
        words = gdb.string_to_argv(argument)
        if not words:
            raise gdb.GdbError("expected: wb-dump FILE [paging|compress]")
        self.write(words[0], *words[1:])

    def write(self, file: str, *form: str) -> None:
        # The file is where gdb is, wherever the server was started.
        path = Path(file).expanduser().absolute()
        gdb.write(monitor(" ".join(["dump", shlex.quote(str(path)), *form])))

    def complete(self, text: str, word: str | None) -> Any:
        if " " in text.strip():
            return [form for form in ("paging", "compress") if form.startswith(word or "")]
        return gdb.COMPLETE_FILENAME


class CoreFile(Dump):
    """Save a core file of the guest as it is now: generate-core-file [FILE]

    gdb's own command cannot do that for a machine; this is wb-dump FILE paging.
    """

    name = "generate-core-file"

    def invoke(self, argument: str, from_tty: bool) -> None:
        words = gdb.string_to_argv(argument) or ["core"]
        self.write(words[0], "paging", *words[1:])


class Arch(Command):
    """Show the processor as auto, i386:x86-64, i386 or i8086: wb-arch NAME"""

    name, before = "wb-arch", "architecture"

    def invoke(self, argument: str, from_tty: bool) -> None:
        gdb.write(monitor(f"architecture {argument or 'auto'}"))
        gdb.execute("set architecture auto", to_string=True)
        gdb.execute("unset tdesc filename", to_string=True)
        look_again()


class Guest:
    """The files of symbols that are loaded, by name: kernel and modules of the guest."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.folder: Any = None

    def read(self) -> list[Any]:
        """The list of what there is now, out of the memory that the stub adds to the guest's."""
        try:
            size = int.from_bytes(peek(LIST, 8), "little")
            found: list[Any] = json.loads(peek(LIST + 8, size))
            return found
        except (gdb.error, ValueError):
            raise gdb.GdbError("expected a connection to workbench: target remote ...") from None

    def update(self, files: list[Any], again: bool = False) -> list[str]:
        """Load what is not loaded, as it is now; gives the names. What is gone stays until
        something else is in its place: it is there at other moments of the run.
        """
        news = []
        with Quiet():
            for file in files:
                old = self.loaded.get(file["name"])
                if again or old is None or self.key(old) != self.key(file):
                    if old is not None:
                        self.remove(old)
                    self.load(file)
                    news.append(file["name"])
        return news

    def key(self, file: Any) -> Any:
        return file["start"], file["path"] if file["offset"] or file["sections"] else file["bytes"]

    def load(self, file: Any) -> None:
        kernel = file["name"] == KERNEL_FILE
        if not file["path"]:
            file["path"] = self.fetch(file)
        if kernel:
            command = f"symbol-file {quoted(file['path'])} -o {file['offset']:#x}"
        else:
            places = [f"-s {name} {at:#x}" for name, at in file["sections"].items()]
            command = " ".join(["add-symbol-file", quoted(file["path"]), *places])
        gdb.execute(command, to_string=True)
        self.loaded[file["name"]] = file

    def remove(self, file: Any) -> None:
        if file["name"] != KERNEL_FILE:
            with contextlib.suppress(gdb.error):
                gdb.execute(f"remove-symbol-file {quoted(file['path'])}", to_string=True)

    def in_text(self, pc: int) -> bool:
        """Is an address in the section .text of a module, or not in a module?"""
        starts = (s for f in self.loaded.values() for s in f["sections"].items() if s[1] <= pc)
        return max(starts, key=lambda s: s[1], default=(".text", 0))[0] == ".text"

    def forget(self) -> None:
        """Unload all of them."""
        with Quiet():
            for file in self.loaded.values():
                self.remove(file)
            gdb.execute("symbol-file", to_string=True)
        self.loaded.clear()

    def fetch(self, file: Any) -> str:
        """Put what the stub has made into a file."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="workbench-")
        data = peek(file["at"], file["bytes"])
        path = Path(self.folder.name) / f"{file['name']}-{file['start']:x}-{file['bytes']}"
        path.write_bytes(data)
        return str(path)


def quoted(path: str) -> str:
    """A path as an argument of gdb's commands."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Quiet:
    """No questions, no pages."""

    def __enter__(self) -> None:
        self.saved = [(name, gdb.parameter(name)) for name in ("confirm", "pagination")]
        for name, _ in self.saved:
            gdb.execute(f"set {name} off", to_string=True)

    def __exit__(self, *_: Any) -> None:
        for name, value in self.saved:
            gdb.execute(f"set {name} {'on' if value else 'off'}", to_string=True)


class Loading(gdb.Breakpoint):
    """Where the kernel begins to run a module that it has loaded."""

    def __init__(self) -> None:
        super().__init__("do_init_module", gdb.BP_HARDWARE_BREAKPOINT, internal=True)
        self.silent = True

    def stop(self) -> bool:
        """Load its symbols and go on: breakpoints that waited for them are set then."""
        GUEST.update(GUEST.read())
        return False


class Symbols(Command):
    """Read the guest's symbols: what the kernel and the modules loaded now have.

    wb-symbols auto: and again whenever the kernel loads a module. wb-symbols manual: no more.
    wb-symbols none: forget them.
    """

    name, words = "wb-symbols", ("auto", "manual", "none")
    loading: Any = None

    def invoke(self, argument: str, from_tty: bool) -> None:
        if argument not in ("", *self.words):
            raise gdb.GdbError(f"expected: wb-symbols [{'|'.join(self.words)}], not {argument!r}")
        if self.loading is not None and argument:
            self.loading.delete()
            self.loading = None
        if argument == "none":
            GUEST.forget()
        if argument in ("none", "manual"):
            return
        files = GUEST.read()
        if not files:
            raise gdb.GdbError("there is no Linux kernel with symbols in guest memory here")
        news = GUEST.update(files, again=True)
        gdb.write(f"symbols: {', '.join(news)}\n")
        if argument == "auto":
            self.loading = Loading()

    def complete(self, text: str, word: str | None) -> Any:
        return [w for w in self.words if w.startswith(text)]


GUEST = Guest()
for kind in (Wb, Accesses, Queue, Request, LastWriter, Seek, Drop, Dump, CoreFile, Arch, Symbols):
    kind()
gdb.unwinder.register_unwinder(None, Frames(), replace=True)
# To find the symbols of a guest, or who wrote to memory, may take some seconds.
gdb.execute("set remotetimeout 60")
