"""The stub: packets in, answers out, one target. It does no I/O.

    stub.receive(data)                 # bytes from gdb
    connection.send(stub.framing.take())
    if stub.running is not None: ...   # gdb wants the guest to move: see `run`

"Debugging with GDB", appendix E; `Qqemu.PhyMemMode` and `qqemu.sstepbits` as in QEMU's manual, "GDB
usage".
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.core.layout import MAX_BREAKPOINTS, MAX_WATCHES
from workbench.gdbstub import packets, registers
from workbench.gdbstub.framing import MAX_PACKET, Framing, Signal, escape
from workbench.gdbstub.memory import Memory
from workbench.gdbstub.monitor import Monitor
from workbench.gdbstub.target import ACCESS, READ, WRITE, Target
from workbench.trace.timeline import Moved

OK, UNKNOWN = b"OK", b""
MALFORMED, NO_MEMORY, REFUSED, TOO_MANY = b"E01", b"E14", b"E22", b"E28"
_WATCH_NAMES = {WRITE: b"watch", READ: b"rwatch", ACCESS: b"awatch"}
_SIGTRAP, _SIGINT = b"05", b"02"
_THREAD = b"01"
_SSTEP_ENABLE, _SSTEP_NOIRQ = 1, 2


class Stub:
    """One debugger's session on a target; a new connection may take it over."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.framing = Framing()
        self.running: packets.Resume | None = None
        """The move that gdb asked for; `run` makes it."""
        self.detached = False
        self.killed = False
        self.interrupted = False
        self.memory = Memory(target.machine.cpu)
        self.monitor = Monitor(target)
        self._breakpoints: dict[tuple[int, int], int] = {}
        self._watches: dict[tuple[int, int, int], None] = {}
        self._xml = registers.target_xml().encode()
        self._last_stop = b"T" + _SIGTRAP + b"thread:01;"
        self._features: set[bytes] = set()

    # Connections.

    def connected(self) -> None:
        """A debugger has connected: it starts without acknowledged state and without points."""
        self.framing = Framing()
        self.running = None
        self.detached = self.interrupted = False
        self.memory.is_physical = False
        self._features = set()
        self._drop_points()

    def _drop_points(self) -> None:
        self._breakpoints.clear()
        self._watches.clear()
        self._apply_points()

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
        self.report(self.target.resume(move.step, move.reverse, lambda: poll() or self.interrupted))

    def start(self) -> packets.Resume:
        """Take the move that is asked for; `report` has to follow."""
        move, self.running = self.running, None
        assert move is not None
        self.interrupted = False
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
            case "begin" | "end":
                if found.text:
                    self.monitor.note = f"the recording ends here: {found.text}"
                if not self.target.can_reverse:
                    return b"W00"
                return b"T%sreplaylog:%s;%s" % (_SIGTRAP, found.kind.encode(), thread)
            case "watch":
                watches = list(self._watches)
                if 0 <= found.range < len(watches):
                    kind, address, _ = watches[found.range]
                    return b"T%s%s:%x;%s" % (_SIGTRAP, _WATCH_NAMES[kind], address, thread)
            case "breakpoint" if b"hwbreak+" in self._features:
                hardware = self._kind_here() == 1
                if hardware or b"swbreak+" in self._features:
                    name = b"hwbreak" if hardware else b"swbreak"
                    return b"T%s%s:;%s" % (_SIGTRAP, name, thread)
            case "access":
                self.monitor.note = found.text
        return b"T" + _SIGTRAP + thread

    def _kind_here(self) -> int:
        pc = self.target.machine.cpu.get("rip")
        return 0 if (0, pc) in self._breakpoints else 1

    # Packets.

    def _packet(self, payload: bytes) -> bytes | None:
        packet = packets.parse(payload)
        cpu = self.target.machine.cpu
        match packet:
            case None:
                return MALFORMED
            case packets.ReadMemory(address, length, binary):
                found = self.memory.read(address, length)
                if found is None:
                    return NO_MEMORY
                return b"b" + escape(found) if binary else found.hex().encode()
            case packets.WriteMemory(address, data):
                if not data:
                    return OK
                return self._write(lambda: self.memory.write(address, data), NO_MEMORY)
            case packets.ReadRegisters():
                return registers.read_all(cpu).hex().encode()
            case packets.WriteRegisters(data):
                return self._write_all(data)
            case packets.ReadRegister(number):
                if number >= len(registers.REGISTERS):
                    return MALFORMED
                return registers.read(cpu, number).hex().encode()
            case packets.WriteRegister(number, data):
                if number >= len(registers.REGISTERS):
                    return MALFORMED
                return self._write(lambda: registers.write(cpu, number, data), REFUSED)
            case packets.Breakpoint():
                return self._point(packet)
            case packets.Resume():
                return self._resume(packet)
            case packets.Query(name, args):
                return self._query(name, args)
            case packets.Other(letter, args):
                return self._other(letter, args)

    def _write(self, write: Callable[[], bool], error: bytes) -> bytes:
        why = self.target.before_write()
        if why:
            self.monitor.note = why
            return REFUSED
        return OK if write() else error

    def _write_all(self, data: bytes) -> bytes:
        if len(data) != registers.G_BYTES:
            return MALFORMED
        cpu = self.target.machine.cpu

        def write() -> bool:
            at = 0
            for number, register in enumerate(registers.REGISTERS):
                piece = data[at : at + register.bytes]
                at += register.bytes
                if piece != registers.read(cpu, number):
                    registers.write(cpu, number, piece)
            return True

        return self._write(write, REFUSED)

    def _point(self, packet: packets.Breakpoint) -> bytes:
        if packet.type <= 1:
            place = (packet.type, packet.address)
            if packet.insert:
                if len(self._breakpoints) >= MAX_BREAKPOINTS:
                    return TOO_MANY
                self._breakpoints[place] = packet.kind
            else:
                self._breakpoints.pop(place, None)
        else:
            watch = (packet.type, packet.address, packet.kind)
            if packet.insert:
                if len(self._watches) >= MAX_WATCHES:
                    return TOO_MANY
                self._watches[watch] = None
            else:
                self._watches.pop(watch, None)
        self._apply_points()
        return OK

    def _apply_points(self) -> None:
        self.target.set_points({address for _, address in self._breakpoints}, list(self._watches))

    def _resume(self, packet: packets.Resume) -> bytes | None:
        if packet.reverse and not self.target.can_reverse:
            return REFUSED
        if packet.address is not None:
            number = registers.PC
            data = packet.address.to_bytes(8, "little")
            cpu = self.target.machine.cpu
            if cpu.get("rip") != packet.address:
                answer = self._write(lambda: registers.write(cpu, number, data), REFUSED)
                if answer != OK:
                    return answer
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
                self._drop_points()
                self.detached = True
                return OK
            case "k":
                self.killed = True
                return None
        return UNKNOWN

    # Queries.

    def _query(self, name: str, args: bytes) -> bytes | None:
        match name:
            case "qSupported":
                self._features = set(args.split(b";"))
                return self._supported()
            case "QStartNoAckMode":
                self.framing.acks = False
                return OK
            case "qXfer":
                return self._transfer(args)
            case "qRcmd":
                return self._command(args)
            case "vCont?":
                return b"vCont;c;C;s;S"
            case "vKill":
                self.killed = True
                return OK
            case "vMustReplyEmpty":
                return UNKNOWN
            case "qfThreadInfo":
                return b"m" + _THREAD
            case "qsThreadInfo":
                return b"l"
            case "qC":
                return b"QC" + _THREAD
            case "qThreadExtraInfo":
                return b"CPU 0".hex().encode()
            case "qAttached":
                return b"1"
            case "qSymbol":
                return OK
            case "qTStatus":
                return UNKNOWN
            case "qqemu.PhyMemMode":
                return b"1" if self.memory.is_physical else b"0"
            case "Qqemu.PhyMemMode":
                if args not in (b"0", b"1"):
                    return MALFORMED
                self.memory.is_physical = args == b"1"
                return OK
            case "qqemu.sstepbits":
                return b"ENABLE=1,NOIRQ=2,NOTIMER=4"
            case "qqemu.sstep":
                return b"0x%x" % (_SSTEP_ENABLE | _SSTEP_NOIRQ * self.target.steps_over_interrupts)
            case "Qqemu.sstep":
                return self._step_bits(args)
        return UNKNOWN

    def _step_bits(self, args: bytes) -> bytes:
        try:
            bits = packets.hex_number(args.removeprefix(b"0x"))
        except ValueError:
            return MALFORMED
        if not bits & _SSTEP_ENABLE or self.target.timeline is None:
            return REFUSED
        self.target.steps_over_interrupts = bool(bits & _SSTEP_NOIRQ)
        return OK

    def _supported(self) -> bytes:
        features = [
            b"PacketSize=%x" % MAX_PACKET,
            b"QStartNoAckMode+",
            b"qXfer:features:read+",
            b"vContSupported+",
            b"swbreak+",
            b"hwbreak+",
            b"binary-upload+",
        ]
        if self.target.can_reverse:
            features += [b"ReverseStep+", b"ReverseContinue+"]
        return b";".join(features)

    def _transfer(self, args: bytes) -> bytes:
        parts = args.split(b":")
        if len(parts) != 4 or parts[:3] != [b"features", b"read", b"target.xml"]:
            return UNKNOWN if parts[:1] != [b"features"] else b"E00"
        start, _, length = parts[3].partition(b",")
        try:
            at, count = packets.hex_number(start), packets.hex_number(length)
        except ValueError:
            return MALFORMED
        piece = self._xml[at : at + min(count, MAX_PACKET // 2)]
        return (b"m" if at + len(piece) < len(self._xml) else b"l") + escape(piece)

    def _command(self, args: bytes) -> bytes:
        try:
            line = bytes.fromhex(args.decode("ascii")).decode()
        except ValueError:
            return MALFORMED
        for start in range(0, len(text := self.monitor.run(line).encode()), MAX_PACKET // 4):
            self.framing.send(b"O" + text[start : start + MAX_PACKET // 4].hex().encode())
        return OK
