"""Answers to `q`, `Q` and `v` packets: what the stub can do, threads, descriptions, `monitor`.

"Debugging with GDB", appendix E.4; `Qqemu.PhyMemMode` and `qqemu.sstepbits` as in QEMU's manual,
"GDB usage"; `qHostInfo` and `qProcessInfo` as lldb asks for them (its document "GDB Remote Protocol
Extensions").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from workbench.gdbstub import frames, packets, registers
from workbench.gdbstub.framing import MAX_PACKET
from workbench.gdbstub.symbols import elf, guest_symbols
from workbench.gdbstub.transfer import Transfers
from workbench.inspect.cpu import mode_text

if TYPE_CHECKING:
    from workbench.gdbstub.stub import Stub

__all__ = ["Queries"]

OK, UNKNOWN = b"OK", b""
MALFORMED, REFUSED = b"E01", b"E22"
_SSTEP_ENABLE, _SSTEP_NOIRQ = 1, 2
_FIXED: Final = {
    "vCont?": b"vCont;c;C;s;S",
    "vMustReplyEmpty": UNKNOWN,
    "qfThreadInfo": b"m01",
    "qsThreadInfo": b"l",
    "qC": b"QC01",
    "qAttached": b"1",
    "qSymbol": OK,
    "qTStatus": UNKNOWN,
    "qqemu.sstepbits": b"ENABLE=1,NOIRQ=2,NOTIMER=4",
    "Qqemu.sstepbits": b"ENABLE=1,NOIRQ=2,NOTIMER=4",  # as pwndbg and gef ask for it
}
_TRIPLES: Final = {
    registers.X86_64: (b"x86_64-unknown-linux", 8),
    registers.I386: (b"i386-unknown-linux", 4),
    registers.I8086: (b"i386-unknown-unknown", 4),
}


class Queries:
    """Those of one stub."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._transfers = Transfers(
            {
                (b"features", b"target.xml"): self._description,
                (b"memory-map", b""): self._memory_map,
                (b"threads", b""): self._threads,
                (b"workbench-symbols", b""): self._symbols,
            }
        )
        self._makers: dict[str, Callable[[bytes], bytes]] = {
            "qSupported": self._supported,
            "QStartNoAckMode": self._no_acks,
            "qXfer": self._transfers.read,
            "qRcmd": self._command,
            "vKill": self._kill,
            "qThreadExtraInfo": lambda args: self._thread_text().encode().hex().encode(),
            "qqemu.PhyMemMode": lambda args: b"%d" % stub.memory.is_physical,
            "Qqemu.PhyMemMode": self._set_physical,
            "qqemu.sstep": lambda args: b"0x%x" % self._step_mode(),
            "Qqemu.sstep": self._set_step_mode,
            "qHostInfo": lambda args: self._host() + b"hostname:776f726b62656e6368;",
            "qMemoryRegionInfo": self._region,
            "qProcessInfo": lambda args: b"pid:1;parent-pid:0;" + self._host(),
        }

    def answer(self, name: str, args: bytes) -> bytes:
        """The answer to a query; empty for one that is not known."""
        if name in _FIXED:
            return _FIXED[name]
        make = self._makers.get(name)
        return UNKNOWN if make is None else make(args)

    def forget(self) -> None:
        """Another debugger begins."""
        self._transfers.forget()

    def _description(self) -> bytes:
        return self._stub.choose_layout().xml.encode()

    # -- what there is ---------------------------------------------------------------------------

    def _supported(self, args: bytes) -> bytes:
        self._stub.features = set(args.split(b";"))
        features = [
            b"PacketSize=%x" % MAX_PACKET,
            b"QStartNoAckMode+",
            *self._transfers.features(),
            b"vContSupported+",
            b"swbreak+",
            b"hwbreak+",
            b"binary-upload+",
            b"ConditionalBreakpoints+",
            b"BreakpointCommands+",
            b"ReverseStep+",
            b"ReverseContinue+",
        ]
        return b";".join(features)

    def _no_acks(self, args: bytes) -> bytes:
        self._stub.framing.acks = False
        return OK

    def _kill(self, args: bytes) -> bytes:
        self._stub.killed = True
        return OK

    def _host(self) -> bytes:
        triple, size = _TRIPLES[self._stub.layout.architecture]
        return b"triple:%s;endian:little;ptrsize:%d;" % (triple.hex().encode(), size)

    def _thread_text(self) -> str:
        machine = self._stub.target.machine
        return f"CPU 0, {mode_text(machine.cpu)}{', halted' * machine.halted}"

    def _threads(self) -> bytes:
        text = self._thread_text()
        return f'<threads><thread id="1" core="0" name="CPU 0">{text}</thread></threads>'.encode()

    def _regions(self) -> tuple[tuple[int, int], ...]:
        """(first, behind the last) address of what can be mapped: gdb's addresses are linear."""
        if self._stub.layout.architecture == registers.X86_64:
            return (0, 1 << 47), ((1 << 64) - (1 << 47), 1 << 64)
        return ((0, 1 << 32),)

    def _memory_map(self) -> bytes:
        found = self._regions()
        if len(found) > 1:  # in 64-bit mode: what gdb's Python reads
            found = tuple(sorted((*found, (frames.FIRST, frames.FIRST + (1 << 48)))))
        regions = "".join(
            f'<memory type="ram" start="{start:#x}" length="{end - start:#x}"/>'
            for start, end in found
        )
        return f"<memory-map>{regions}</memory-map>".encode()

    def _region(self, args: bytes) -> bytes:
        """lldb's question for one address; what has no permissions is not mapped."""
        try:
            address = packets.hex_number(args)
        except ValueError:
            return MALFORMED
        first = 0
        for start, end in self._regions():
            if address < start:
                return b"start:%x;size:%x;" % (first, start - first)
            if address < end:
                return b"start:%x;size:%x;permissions:rwx;" % (start, end - start)
            first = end
        return b"start:%x;size:%x;" % (first, (1 << 64) - first)

    def _symbols(self) -> bytes | None:
        found = guest_symbols(self._stub.target.machine)
        return elf(found) if found else None

    # -- QEMU's ----------------------------------------------------------------------------------

    def _set_physical(self, args: bytes) -> bytes:
        if args not in (b"0", b"1"):
            return MALFORMED
        self._stub.memory.is_physical = args == b"1"
        return OK

    def _step_mode(self) -> int:
        return _SSTEP_ENABLE | _SSTEP_NOIRQ * self._stub.target.steps_over_interrupts

    def _set_step_mode(self, args: bytes) -> bytes:
        try:
            bits = packets.hex_number(args.removeprefix(b"0x"))
        except ValueError:
            return MALFORMED
        target = self._stub.target
        if not bits & _SSTEP_ENABLE or target.timeline is None:
            return REFUSED
        target.steps_over_interrupts = bool(bits & _SSTEP_NOIRQ)
        return OK

    # -- monitor ---------------------------------------------------------------------------------

    def _command(self, args: bytes) -> bytes:
        try:
            line = bytes.fromhex(args.decode("ascii")).decode()
        except ValueError:
            return MALFORMED
        text = self._stub.monitor.run(line).encode("utf-8", "replace")
        for start in range(0, len(text), MAX_PACKET // 4):
            self._stub.framing.send(b"O" + text[start : start + MAX_PACKET // 4].hex().encode())
        return OK
