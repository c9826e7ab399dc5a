"""Commands for gdb, on a machine that workbench serves; `workbench gdb` sources this file.

It runs inside gdb, whose Python has nothing of ours: (gdb) source gdb_commands.py
"""

# mypy: allow-subclassing-any
import contextlib
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


def monitor(line: str) -> str:
    """Run a monitor command, give its text."""
    return str(gdb.execute("monitor " + line, to_string=True))


def look_again() -> None:
    """The guest is elsewhere now: forget registers, and show where it is."""
    gdb.execute("maintenance flush register-cache", to_string=True)
    with contextlib.suppress(gdb.error):
        gdb.execute("frame")


def transfer(name: str) -> bytes:
    """Read an object of the stub with qXfer packets."""
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise gdb.GdbError("expected a connection to workbench: target remote ...")
    data = bytearray()
    while True:
        packet = f"qXfer:{name}:read::{len(data):x},{PIECE:x}"
        answer = connection.send_packet(packet.encode())
        if answer[:1] not in (b"m", b"l"):
            raise gdb.GdbError(f"there is no {name} here")
        at = 1
        while at < len(answer):
            escaped = answer[at] == 0x7D and at + 1 < len(answer)
            data.append(answer[at + 1] ^ 0x20 if escaped else answer[at])
            at += 1 + escaped
        if answer[:1] == b"l":
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
        # A frame's identity: what its caller's stack pointer will be, and its function.
        code, stack, _ = types = [value.type for value in values]
        identity = Identity(gdb.Value(caller[1]).cast(stack), gdb.Value(start).cast(code))
        info = pending.create_unwind_info(identity)
        for name, value, kind in zip(("rip", "rsp", "rbp"), caller, types):  # noqa: B905
            info.add_saved_register(name, gdb.Value(value).cast(kind))
        return info

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


class Seek(Command):
    """Go to a position: wb-seek 1.2G, 50%, end, access:N, request:ide0/17, bookmark:NAME"""

    name, before, moves = "wb-seek", "seek", True


class Drop(Command):
    """Leave a diversion, which began when registers or memory were written."""

    name, before, moves = "wb-drop", "drop", True


class Arch(Command):
    """Show the processor as auto, i386:x86-64, i386 or i8086: wb-arch NAME"""

    name, before = "wb-arch", "architecture"

    def invoke(self, argument: str, from_tty: bool) -> None:
        gdb.write(monitor(f"architecture {argument or 'auto'}"))
        gdb.execute("set architecture auto", to_string=True)
        gdb.execute("unset tdesc filename", to_string=True)
        look_again()


class Symbols(Command):
    """Read the guest's symbols again: what the kernel and the modules loaded now have."""

    name = "wb-symbols"

    def invoke(self, argument: str, from_tty: bool) -> None:
        data = transfer("workbench-symbols")
        with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
            path = Path(folder) / "guest.elf"
            path.write_bytes(data)
            gdb.execute("set confirm off")
            gdb.execute(f"symbol-file {path}")
        gdb.write(f"{len(data):,} bytes of symbols\n")

    def complete(self, text: str, word: str | None) -> Any:
        return gdb.COMPLETE_NONE


for kind in (Wb, Accesses, Queue, Request, Seek, Drop, Arch, Symbols):
    kind()
gdb.unwinder.register_unwinder(None, Frames(), replace=True)
