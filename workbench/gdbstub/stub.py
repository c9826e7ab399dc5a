"""The stub: packets in, answers out, one target. It does no I/O.

    stub.receive(data)                 # bytes from gdb
    connection.send(stub.framing.take())
    if stub.running is not None: ...   # gdb wants the guest to move: see `run`

"Debugging with GDB", appendix E; `Qqemu.PhyMemMode` and `qqemu.sstepbits` as in QEMU's manual, "GDB
usage".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workbench.core.layout import EFER_LMA
from workbench.errors import TraceWriteError, WorkbenchError
from workbench.gdbstub import frames, packets, registers
from workbench.gdbstub.agent import Context
from workbench.gdbstub.frames import Frames
from workbench.gdbstub.framing import Framing, Signal, escape
from workbench.gdbstub.memory import Memory
from workbench.gdbstub.monitor import Monitor
from workbench.gdbstub.points import HARDWARE, Points
from workbench.gdbstub.queries import Queries
from workbench.gdbstub.symbolfiles import SymbolWindow
from workbench.gdbstub.target import ACCESS, READ, WRITE, Target
from workbench.trace.moved import Moved

OK, UNKNOWN = b"OK", b""
MALFORMED, NO_MEMORY, REFUSED, TOO_MANY = b"E01", b"E14", b"E22", b"E28"
_WATCH_NAMES = {WRITE: b"watch", READ: b"rwatch", ACCESS: b"awatch"}
_SIGTRAP, _SIGINT = b"05", b"02"
_THREAD = b"01"


class Stub:
    """One debugger's session on a target; a new connection may take it over."""

    def __init__(
        self, target: Target, architecture: str = registers.X86_64, kernel: Path | None = None
    ) -> None:
        """`architecture` is one of `registers.ARCHITECTURES`; `kernel` is a file with the symbols
        of the guest's kernel, if the user has one.
        """
        self.target = target
        self.framing = Framing()
        self.architecture = architecture
        self.layout = registers.LAYOUTS[registers.X86_64]
        self.running: packets.Resume | None = None
        """The move that gdb asked for; `run` makes it."""
        self.detached = False
        self.killed = False
        self.interrupted = False
        self.memory = Memory(lambda: target.machine.cpu)
        self._frames, self._symbols = Frames(target), SymbolWindow(target, kernel)
        self.monitor = Monitor(target, self)
        self.points = Points(target)
        self.features: set[bytes] = set()
        """What the debugger says that it can do."""
        self._queries = Queries(self)
        self._last_stop = b"T" + _SIGTRAP + b"thread:01;"

    # Connections.

    def connected(self) -> None:
        """A debugger has connected: it starts without acknowledged state and without points."""
        self.framing = Framing()
        self.running = None
        self.detached = self.interrupted = False
        self.memory.is_physical = False
        self.features = set()
        self.choose_layout()
        self._queries.forget()
        self.points.clear()

    def choose_layout(self) -> registers.Layout:
        """The registers as they are described from now on."""
        name, cpu = self.architecture, self.target.machine.cpu
        if name == registers.AUTO:
            name = registers.X86_64 if cpu.get("efer") & EFER_LMA else registers.of_mode(cpu)
        self.layout = registers.LAYOUTS[name]
        return self.layout

    def receive(self, data: bytes) -> None:
        """Take bytes from the debugger; answers are in `framing.take()`."""
        for event in self.framing.feed(data):
            if event is Signal.INTERRUPT:
                self.interrupted = True
            elif isinstance(event, bytes):
                answer = self._packet(event)
                if answer is not None:
                    self.framing.send(answer)

    def run(self, poll: Callable[[], bool]) -> None:
        """Make the move that is asked for, and report it; `poll` has to feed `receive`."""
        move = self.start()

        def stopping() -> bool:
            return poll() or self.interrupted

        timeline = self.target.timeline
        if timeline is not None:
            timeline.condition_registers = registers.plain_names(self.layout)
        try:
            found = self.target.resume(move.step, move.reverse, stopping)
            while found.kind == "breakpoint" and not move.step and not self.stops():
                found = self.target.resume(move.step, move.reverse, stopping)
        except TraceWriteError:
            raise  # the recording that is debugged has ended
        except WorkbenchError as error:
            self.monitor.note = str(error)
            found = Moved("interrupted")
        self.report(found)

    def stops(self) -> bool:
        """Is the breakpoint at the present instruction one to stop at?"""
        cpu, layout = self.target.machine.cpu, self.layout

        def register(number: int) -> int:
            return int.from_bytes(layout.read(cpu, number), "little")

        context = Context(register, self.memory.read, self.say)
        return self.points.stops(cpu.linear_pc, context, self._note)

    def _note(self, text: str) -> None:
        self.monitor.note = text

    def say(self, text: str) -> None:
        """Show something on gdb's console while the guest runs."""
        self.framing.send(b"O" + text.encode().hex().encode())

    def start(self) -> packets.Resume:
        """Take the move that is asked for; `report` has to follow."""
        move, self.running = self.running, None
        assert move is not None
        self.points.apply()
        self.interrupted = False
        self.monitor.note = ""
        return move

    def report(self, found: Moved) -> None:
        """Tell the debugger how a move ended."""
        self._last_stop = self._stop_reply(found)
        self.framing.send(self._last_stop)

    def _stop_reply(self, found: Moved) -> bytes:
        thread = b"thread:%s;" % _THREAD
        match found.kind:
            case "interrupted":
                return b"T" + _SIGINT + thread
            case "closed":
                return b"W00"
            case "begin" | "end":
                if found.text:
                    self.monitor.note = f"the recording ends here: {found.text}"
                return b"T%sreplaylog:%s;%s" % (_SIGTRAP, found.kind.encode(), thread)
            case "watch":
                watch = self.points.watch(found.range)
                if watch is not None:
                    if found.text:
                        self.say(f"{found.text}\n")
                    return b"T%s%s:%x;%s" % (_SIGTRAP, _WATCH_NAMES[watch[0]], watch[1], thread)
            case "breakpoint":
                hardware = self.points.kind(self.target.machine.cpu.linear_pc) == HARDWARE
                name = b"hwbreak" if hardware else b"swbreak"
                if name + b"+" in self.features:
                    return b"T%s%s:;%s" % (_SIGTRAP, name, thread)
            case "access":
                self.monitor.note = found.text
                self.say(f"stopped by: {found.text}\n")
        return b"T" + _SIGTRAP + thread

    # Packets.

    def _packet(self, payload: bytes) -> bytes | None:
        packet = packets.parse(payload)
        cpu = self.target.machine.cpu
        match packet:
            case None:
                return MALFORMED
            case packets.ReadMemory(address, length, binary):
                found = self._tables(address, length) or self.memory.read(address, length)
                if found is None:
                    return NO_MEMORY
                return b"b" + escape(found) if binary else found.hex().encode()
            case packets.WriteMemory(address, data):
                if not data:
                    return OK
                if not self.memory.has(address, len(data)):
                    return NO_MEMORY
                return self._write(lambda: self.memory.write(address, data), NO_MEMORY)
            case packets.ReadRegisters():
                return self.layout.read_all(cpu).hex().encode()
            case packets.WriteRegisters(data):
                return self._write_all(data)
            case packets.ReadRegister(number):
                if number >= len(self.layout.registers):
                    return MALFORMED
                return self.layout.read(cpu, number).hex().encode()
            case packets.WriteRegister(number, data):
                if number >= len(self.layout.registers):
                    return MALFORMED
                return self._write(
                    lambda: self.layout.write(self.target.machine.cpu, number, data), REFUSED
                )
            case packets.Breakpoint():
                return OK if self.points.change(packet) else TOO_MANY
            case packets.Resume():
                return self._resume(packet)
            case packets.Query(name, args):
                return self._queries.answer(name, args)
            case packets.Other(letter, args):
                return self._other(letter, args)

    def _tables(self, address: int, length: int) -> bytes | None:
        """What gdb's Python reads as memory, at addresses that are none."""
        if address >> 48 != frames.FIRST >> 48:
            return None
        return self._frames.read(address, length) or self._symbols.read(address, length)

    def _write(self, write: Callable[[], bool], error: bytes) -> bytes:
        why = self.target.before_write()
        if why:
            self.monitor.note = why
            return REFUSED
        return OK if write() else error

    def _write_all(self, data: bytes) -> bytes:
        layout = self.layout
        if len(data) != layout.bytes:
            return MALFORMED

        def write() -> bool:
            cpu, at = self.target.machine.cpu, 0
            for number, register in enumerate(layout.registers):
                layout.write(cpu, number, data[at : at + register.bytes])
                at += register.bytes
            return True

        return self._write(write, REFUSED)

    def _resume(self, packet: packets.Resume) -> bytes | None:
        if packet.address is not None:
            address = packet.address
            if self.target.machine.cpu.linear_pc != address:
                why = self.target.before_write()
                if why:
                    self.monitor.note = why
                    return REFUSED
                registers.set_linear_pc(self.target.machine.cpu, address)
        self.running = packet
        return None

    def _other(self, letter: str, args: bytes) -> bytes | None:
        match letter:
            case "?":
                return self._last_stop
            case "H" | "T":
                return (
                    OK
                    if args[-2:] in (b"c1", b"g1", b"g0", b"c0", b"-1", b"01", b"1", b"0")
                    else REFUSED
                )
            case "!":
                return OK
            case "D":
                self.points.clear()
                self.detached = True
                return OK
            case "k":
                self.killed = True
                return None
        return UNKNOWN
