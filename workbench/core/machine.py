"""The machine: the only place where processor, memory, buses, clock, inputs and devices meet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from workbench.core import layout as lay
from workbench.core import snapshot
from workbench.core.bus import Bus, Tracer, Window
from workbench.core.clock import Clock
from workbench.core.config import MachineConfig
from workbench.core.engine import STATE_FIELDS, Cpu, TripleFault
from workbench.core.inputs import FETCH, Batch, Input, Inputs, ReplayMissing
from workbench.core.irq import SharedLine
from workbench.core.lang import bits_of
from workbench.core.layout import CPU
from workbench.core.memory import PhysMemory
from workbench.core.pages import PageStore
from workbench.core.polls import Place, Polls, PollTable
from workbench.core.requests import Burst, RequestEvent, Requests
from workbench.core.snapshot import Snapshot
from workbench.core.spans import Spans, pairs
from workbench.core.system import System

NEVER = 1 << 62
CONSOLE_BYTES = 1 << 16
IDLE_DEADLINES = 1000
NMI_VECTOR, UD_VECTOR = 2, 6
_BIAS = CPU.offset("bias_ps") >> 3
_RIP = CPU.offset("rip") >> 3
_INFO = CPU.offset("exit_info") >> 3


class Device(Protocol):
    """What every device has; all else is a capability that it registers while it is wired."""

    @property
    def name(self) -> str:
        """Unique in the machine."""

    def reset(self) -> None:
        """Back to the state after power-on."""

    def save(self) -> dict[str, Any]:
        """The whole state as plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `save` gave; makes no edge on any line."""


class InterruptController(Protocol):
    """Whom the processor asks for a vector."""

    def pending(self) -> bool:
        """Is there an interrupt to take?"""

    def acknowledge(self) -> int:
        """The vector; the interrupt is in service from now on."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why `run` returned: "icount", "shutdown", "reset", "triple-fault", "halted", "idle",
    "interrupted", "diverged"; "breakpoint" and "watch" for debuggers.
    """

    kind: str
    code: int = 0
    reason: str = ""


class Observer:
    """Hears everything that a run does; all methods are empty here."""

    each_access: ClassVar[bool] = False
    """It looks at the machine at each access, or stops it: none may be told later."""

    def on_access(
        self,
        kind: str,
        device: str,
        offset: int,
        size: int,
        is_write: bool,
        value: int,
        addr: int,
        icount: int,
        pc: int,
        count: int = 1,
    ) -> None:
        """A device register was accessed; `count` is the number of repetitions of string I/O."""

    def on_polls(self, polls: Polls) -> None:
        """A register was read again and again (see core/polls.py)."""
        place = polls.place
        for icount, pc, value in polls.each():
            self.on_access(
                place.kind, place.device, place.offset, place.size, False, value, place.addr,
                icount, pc,
            )  # fmt: skip

    def on_exit(self, kind: str, icount: int, pc: int, detail: int) -> None:
        """Guest code was left for another reason."""

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        """An interrupt is delivered before the instruction at `pc`."""

    def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
        """A device accessed memory (is_write: it wrote)."""

    def on_request(self, request: RequestEvent, icount: int) -> None:
        """A request to a device begins, is known better, or ends (see core/requests.py)."""

    def on_burst(self, burst: Burst, icount: int) -> None:
        """Requests with the transfers that served them."""
        for begin, gpa, length, end in burst.served():
            self.on_request(begin, icount)
            self.on_dma(burst.device, gpa, length, True, icount)
            self.on_request(end, icount)

    def on_dma_spans(self, device: str, spans: Spans, is_write: bool, icount: int) -> None:
        """As many transfers at one moment as there are spans."""
        for gpa, length in pairs(spans):
            self.on_dma(device, gpa, length, is_write, icount)

    def on_irq_line(self, name: str, level: bool, icount: int) -> None:
        """The level of an interrupt line changed."""

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        """The guest printed."""

    def on_input(self, inp: Input) -> None:
        """An input is delivered."""

    def on_inputs(self, batch: Batch) -> None:
        """Inputs are delivered, all that `on_input` does not hear of otherwise."""
        for inp in batch:
            self.on_input(inp)

    hears_frames = False
    """Is `on_frame` wanted? Segments of TCP are cut for it."""

    def on_frame(self, device: str, frame: bytes, icount: int) -> None:
        """A network controller sends a frame, without FCS; not in the trace."""


class Machine:
    """One computer.  Nothing in it is shared with another one."""

    def __init__(self, config: MachineConfig) -> None:
        # parts
        self.config = config
        self.ram_bytes = config.ram_bytes
        self.cpu = Cpu(config.ram_bytes)
        self.cpu.set("ps_per_insn", config.ps_per_insn)
        self.cpu.set("tsc_period_ps", config.tsc_period_ps)
        self.cpu.set("rand_state", config.seed)
        self.memory = PhysMemory(self.cpu)
        self.clock = Clock(config.ps_per_insn)
        self.pio = Bus("pio", 1 << 16)
        self.mmio = Bus("mmio", 1 << 52)
        self.inputs = Inputs()
        self.inputs.on_fetch = self._fetched
        self.devices: dict[str, Device] = {}
        self.irq: InterruptController | None = None
        self.lines: dict[str, SharedLine] = {}
        """The interrupt lines of the board, by name."""
        self.msr_handlers: dict[int, tuple[Callable[[], int], Callable[[int], None]]] = {}
        self.system = System(msr_handlers=self.msr_handlers)
        self.cpu.handlers = self.system.handlers()
        self.polls = PollTable(self.cpu, config.access_cost_ps)
        # book-keeping
        self.observers: list[Observer] = []
        self.undefined: dict[bytes, int] = {}
        self._moment: tuple[int, int] | None = None  # (count, bias) when inputs were last taken
        self._stop: Stop | None = None
        self._string_count = 1
        self._offers = True
        self._access_cost_ps = config.access_cost_ps
        self.pages = PageStore()  # of snapshots
        self.pio.tracer = self._trace_pio = self._tracer("pio")
        self.mmio.tracer = self._tracer("mmio")
        self.restart: Callable[[], None] | None = None
        """Starts the guest again after a reset; None: a reset ends the run."""
        self.rest: Callable[[int], int] | None = None
        """Asked before a halted guest goes on to a moment: `rest(ps)` gives how far it goes, at
        most to `ps`. It may wait meanwhile for an input, which is then taken there.
        """
        # state
        self._resets = False
        self._halted = False
        self._nmi = False
        by_name: dict[str, Callable[[], None]] = {
            "pio": self._exit_pio,
            "mmio": self._exit_mmio,
            "irq": self._exit_irq,
            "hlt": self._exit_hlt,
            "system": self._exit_system,
            "triple-fault": self._exit_triple,
            "budget": lambda: None,
            "undefined": self._exit_undefined,
            "breakpoint": lambda: self._debug_stop("breakpoint"),
            "watch": lambda: self._debug_stop("watch"),
        }
        self._exits = [by_name.get(name, _never) for name in lay.EXIT_NAMES]

    # -- wiring

    def attach(self, device: Device) -> None:
        """Add a device to the machine's reset, snapshot and digest; listen to its requests."""
        if device.name in self.devices:
            raise ValueError(f"expected one device with the name {device.name!r}")
        self.devices[device.name] = device
        handles: Sequence[Requests] = getattr(device, "request_handles", ())
        for handle in handles:
            handle.report = self.trace_request
            handle.report_burst = self.trace_burst

    def set_intr(self, level: bool) -> None:
        """The INTR pin of the processor."""
        pending = self.cpu.get("irq_pending") & ~lay.INTR_PENDING
        self.cpu.set("irq_pending", pending | (lay.INTR_PENDING if level else 0))

    def set_nmi(self, *_: Any) -> None:
        """An edge on the NMI pin."""
        self._nmi = True
        self.cpu.set("irq_pending", self.cpu.get("irq_pending") | lay.NMI_PENDING)

    def request_reset(self, reason: str = "reset") -> None:
        """A device asks for a reset of the machine: it starts again, or the run ends."""
        if self.restart is None:
            self._stop = Stop("reset", 0, str(reason))
        else:
            self._resets = True

    def request_shutdown(self, code: int = 0, reason: str = "shutdown") -> None:
        """A device switches the machine off."""
        self._stop = Stop("shutdown", code, reason)

    @property
    def halted(self) -> bool:
        """Does the processor wait in HLT?"""
        return self._halted

    def interrupt(self) -> None:
        """Ask `run` to return at the next instruction boundary at which it looks up."""
        if self._stop is None:
            self._stop = Stop("interrupted")

    def take_stop(self) -> Stop | None:
        """Why the next `run` would return at once, if a device or a host has asked for it; once."""
        stop, self._stop = self._stop, None
        return stop

    def tsc_ps(self, tsc: int) -> int:
        """Guest time at which the TSC reaches a value."""
        return ((tsc - self.cpu.get("tsc_offset")) & 0xFFFFFFFFFFFFFFFF) * self.config.tsc_period_ps

    # -- what observers hear

    def console(self, device: str, data: bytes) -> None:
        """A device printed; observers hear it in pieces of a bounded size."""
        for at in range(0, len(data), CONSOLE_BYTES):
            piece = data[at : at + CONSOLE_BYTES]
            for o in self.observers:
                o.on_console(device, piece, self.clock.icount)

    def frames_sent(self, device: str, frames: Callable[[], Sequence[bytes]]) -> None:
        """Frames go out over a cable; `frames` makes them for who hears of them."""
        for o in self.observers:
            if o.hears_frames:
                for frame in frames():
                    o.on_frame(device, frame, self.clock.icount)

    def _tracer(self, kind: str) -> Tracer:
        clock, q, observers = self.clock, self.cpu._q, self.observers

        def trace(window: Window | None, addr: int, size: int, is_write: bool, value: int) -> None:
            device, offset = ("", addr) if window is None else (window.name, addr - window.base)
            for o in observers:
                o.on_access(
                    kind, device, offset, size, is_write, value, addr, clock.icount, q[_RIP],
                    self._string_count,
                )  # fmt: skip

        return trace

    def trace_cfg(self, device: str, offset: int, size: int, is_write: bool, value: int) -> None:
        """The host bridge reports an access to configuration space."""
        icount, pc = self.clock.icount, self.cpu._q[_RIP]
        for o in self.observers:
            o.on_access("cfg", device, offset, size, is_write, value, 0, icount, pc)

    def trace_dma(self, device: str, gpa: int, length: int, is_write: bool) -> None:
        """A device's DMA handle reports a transfer."""
        for o in self.observers:
            o.on_dma(device, gpa, length, is_write, self.clock.icount)

    def trace_dma_spans(self, device: str, spans: Spans, is_write: bool) -> None:
        """A device's DMA handle reports many transfers at once."""
        for o in self.observers:
            o.on_dma_spans(device, spans, is_write, self.clock.icount)

    def trace_request(self, request: RequestEvent) -> None:
        """A device's handle reports of a request."""
        icount = self.clock.icount
        for o in self.observers:
            o.on_request(request, icount)

    def trace_burst(self, burst: Burst) -> None:
        """A device's handle reports requests that were served at once."""
        for o in self.observers:
            o.on_burst(burst, self.clock.icount)

    def _fetched(self, target: str, data: bytes) -> None:
        inp = Input(self.clock.icount, self.clock.now_ps, target, FETCH, data)
        for o in self.observers:
            o.on_input(inp)

    # -- running

    def run(self, until_icount: int | None = None, until_ps: int | None = None) -> Stop:
        """Run until something ends it, at the latest when `until_icount` instructions have
        retired.

        A guest that stays halted for many deadlines, as one does that has no interrupts enabled,
        is "idle": it may go on. A halted guest that has come to `until_ps` is so at once.
        """
        cpu, clock, q, inputs = self.cpu, self.clock, self.cpu._q, self.inputs
        patience = IDLE_DEADLINES
        until = NEVER if until_icount is None else until_icount
        exits, ps_per_insn, replaying = self._exits, clock.ps_per_insn, inputs.replaying
        polls = self.polls
        polls.withdraw()
        self._offers = not any(o.each_access for o in self.observers)
        while True:
            if self._resets:
                self._reset()
            if self._stop is not None:
                stop, self._stop = self._stop, None
                return stop
            icount, bias = moment = clock.icount, clock.bias_ps
            now_ps = icount * ps_per_insn + bias
            if moment != self._moment:
                self._moment = moment
                if inputs.any_due(icount, now_ps):
                    polls.withdraw()
                    self._deliver_inputs()
            due = clock.next_ps
            if due is not None and due <= now_ps:
                polls.withdraw()
                try:
                    clock.run_due()
                except ReplayMissing as missing:
                    return Stop("diverged", 0, str(missing))
                continue
            if self._halted and not self._wake():
                if self._stop is None:
                    if patience == 0 or (until_ps is not None and now_ps >= until_ps):
                        return Stop("idle")
                    if not self._skip():
                        return Stop("halted", 0, "the guest is halted and nothing will wake it")
                    patience -= 1
                continue
            if icount >= until:
                return Stop("icount")
            limit = until
            if due is not None:
                limit = min(limit, -((bias - due) // ps_per_insn))
            if replaying or inputs.scheduled:
                limit = self._limit(limit)
            if polls.offered:
                limit = self._allow_polls(limit, now_ps, due)
            q[_BIAS] = bias
            reason = cpu.enter(limit)
            clock.icount = cpu.icount
            if polls.offered:
                clock.bias_ps = q[_BIAS]
                self._tell_polls()
                if reason != lay.EXIT_BUDGET:
                    polls.withdraw()
            patience = IDLE_DEADLINES
            try:
                exits[reason]()
            except ReplayMissing as missing:
                return Stop("diverged", 0, str(missing))

    def _reset(self) -> None:
        """The reset line of the board, at an instruction that does not end any more; memory stays
        as it is, and so do the random numbers' state and the gate of A20 until its devices change
        it. Debuggers see it as an exit.
        """
        self._resets = self._halted = self._nmi = False
        cpu = self.cpu
        for o in self.observers:
            o.on_exit("reset", self.clock.icount, cpu._q[_RIP], 0)
        kept = {name: cpu.get(name) for name in ("rand_state", "a20_mask")}
        cpu.reset()
        for name, value in kept.items():
            cpu.set(name, value)
        cpu.set("tsc_offset", -(self.clock.now_ps // self.config.tsc_period_ps))
        self.system.reset()
        for device in self.devices.values():
            device.reset()
        assert self.restart is not None
        self.restart()

    def _limit(self, limit: int) -> int:
        """How far to run before an input whose time is known."""
        stamp = self.inputs.next_stamp()
        if stamp is not None and self.clock.icount < stamp[0] < limit:
            limit = stamp[0]
        scheduled = self.inputs.scheduled_ps
        if scheduled is not None:
            limit = min(limit, self.clock.icount_at(scheduled))
        return limit

    def _allow_polls(self, limit: int, now_ps: int, due_ps: int | None) -> int:
        """How far to run with reads on offer: not when an input waits for a moment between
        instructions, which only an access makes.
        """
        clock, inputs = self.clock, self.inputs
        stamp = inputs.next_stamp()
        if stamp is not None and stamp[0] <= clock.icount:
            self.polls.withdraw()
            return limit
        scheduled = inputs.scheduled_ps
        deadline = min(NEVER if ps is None else ps for ps in (due_ps, scheduled))
        spare = self.polls.allow(deadline - now_ps)
        return min(limit, clock.icount - (-spare // clock.ps_per_insn))

    def _tell_polls(self) -> None:
        polls = self.polls.take()
        if polls is not None:
            window = (self.pio if polls.place.kind == "pio" else self.mmio).find(polls.place.addr)
            assert window is not None
            window.reads += len(polls)
            for o in self.observers:
                o.on_polls(polls)

    def _offer(self, kind: str, window: Window | None, addr: int, size: int) -> None:
        """A register was read; it may be one that is polled."""
        if window is None or window.steady is None or not self._offers:
            return
        offset = addr - window.base
        if offset + size <= window.size:
            steady = window.steady(offset, size)
            if steady is not None:
                self.polls.offer(Place(kind, window.name, offset, size, addr), steady)

    def _deliver_inputs(self) -> None:
        """Inputs are taken once at a moment (count, time), before anything else happens at it: so
        their stamp says exactly when, and a replay that delivers them when it first gets there
        does the same.
        """
        for batch in self.inputs.due(self.clock.icount, self.clock.now_ps):
            for o in self.observers:
                o.on_inputs(batch)
            self.inputs.dispatch(batch)

    def _wake(self) -> bool:
        pending = self.cpu.get("irq_pending")
        nmi = pending & lay.NMI_PENDING and not self.cpu.get("nmi_blocked")
        if nmi or (pending & lay.INTR_PENDING and self.cpu.get("eflags") & lay.IF):
            self._halted = False
            return True
        return False

    def _skip(self) -> bool:
        """Halted: go to the next moment at which something happens; False if there is none."""
        deadline = self.clock.next_ps
        stamp = self.inputs.next_stamp()
        if stamp is not None and stamp[0] <= self.clock.icount:
            deadline = stamp[1] if deadline is None else min(deadline, stamp[1])
        scheduled = self.inputs.scheduled_ps
        if scheduled is not None:
            deadline = scheduled if deadline is None else min(deadline, scheduled)
        if self.inputs.waiting:
            soon = self.clock.now_ps + 1  # a new moment, to take it in
            deadline = soon if deadline is None else min(deadline, soon)
        elif deadline is None:
            return False
        elif self.rest is not None:
            deadline = self.rest(deadline)
        self.clock.skip_to(deadline)
        return True

    def _exit_pio(self) -> None:
        cpu = self.cpu
        port, size, is_write, value, count, linear = cpu._q[_INFO : _INFO + 6]
        if count:  # INS and OUTS give one, IN and OUT give none
            self._string_count = count
            self._string_io(port, size, is_write, count, linear)
            self._string_count = 1
        elif is_write:
            self.pio.write(port, size, value)
            cpu.access_result(0)
        else:
            cpu.access_result(self.pio.read(port, size))
            self._offer("pio", self.pio.find(port), port, size)
        self.clock.bias_ps += self._access_cost_ps

    def _string_io(self, port: int, size: int, is_write: int, count: int, linear: int) -> None:
        """REP INS and REP OUTS: all elements at once, logged as one access with their count (value:
        the last).
        """
        cpu = self.cpu
        window = self.pio.find(port)
        value = None
        if not cpu.get("eflags") & lay.DF:
            value = self._string_block(window, port, size, is_write, count, linear)
        if value is None:
            value = self._string_elements(port, size, is_write, count, linear)
        self._trace_pio(window, port, size, bool(is_write), value)
        cpu.access_result(count)

    def _string_block(
        self, window: Window | None, port: int, size: int, is_write: int, count: int, linear: int
    ) -> int | None:
        """The elements as one block, where the device takes blocks; gives the last one."""
        cpu = self.cpu
        if window is None or window.base + window.size < port + size:
            return None
        offset = port - window.base
        if is_write:
            if window.write_block is None:
                return None
            data = cpu.read_linear(linear, size * count)
            if not window.write_block(offset, size, data):
                return None
            window.writes += count
        else:
            if window.read_block is None:
                return None
            block = window.read_block(offset, size, count)
            if block is None:
                return None
            window.reads += count
            data = block
            cpu.write_linear(linear, data)
        return int.from_bytes(data[-size:], "little")

    def _string_elements(self, port: int, size: int, is_write: int, count: int, linear: int) -> int:
        """The elements one by one; gives the last one."""
        cpu = self.cpu
        step = -size if cpu.get("eflags") & lay.DF else size
        value = 0
        tracer, self.pio.tracer = self.pio.tracer, None
        try:
            for n in range(count):
                at = linear + n * step & 0xFFFFFFFFFFFFFFFF
                if is_write:
                    value = int.from_bytes(cpu.read_linear(at, size), "little")
                    self.pio.write(port, size, value)
                else:
                    value = self.pio.read(port, size)
                    cpu.write_linear(at, value.to_bytes(size, "little"))
        finally:
            self.pio.tracer = tracer
        return value

    def _exit_mmio(self) -> None:
        cpu = self.cpu
        gpa, size, is_write, value = cpu._q[_INFO : _INFO + 4]
        if is_write:
            self.mmio.write(gpa, size, value)
            cpu.access_result(0)
        else:
            cpu.access_result(self.mmio.read(gpa, size))
            self._offer("mmio", self.mmio.find(gpa), gpa, size)
        self.clock.bias_ps += self._access_cost_ps

    def _exit_irq(self) -> None:
        if self._nmi and not self.cpu.get("nmi_blocked"):
            self._nmi = False
            self.cpu.set("irq_pending", self.cpu.get("irq_pending") & ~lay.NMI_PENDING)
            if not self.cpu.deliver(NMI_VECTOR, None, 0):
                self._exit_triple()
            return
        if self.irq is None or not self.irq.pending():
            self.set_intr(False)
            return
        vector = self.irq.acknowledge()
        icount, pc = self.clock.icount, self.cpu._q[_RIP]
        for o in self.observers:
            o.on_interrupt(vector, icount, pc)
        if not self.cpu.deliver(vector, None, 0):
            self._exit_triple()

    def _exit_hlt(self) -> None:
        self._halted = True
        for o in self.observers:
            o.on_exit("hlt", self.clock.icount, self.cpu._q[_RIP], 0)

    def _exit_system(self) -> None:
        icount, pc = self.clock.icount, self.cpu._q[_RIP]
        detail = self.cpu._q[_INFO]
        try:
            name = self.cpu.system()
        except TripleFault:
            self._exit_triple()
            return
        self.clock.icount = self.cpu.icount
        for o in self.observers:
            o.on_exit(name, icount, pc, detail)

    def _exit_undefined(self) -> None:
        """Bytes that are no instruction of this processor: note them, and #UD."""
        icount, pc = self.clock.icount, self.cpu._q[_RIP]
        code = bytes(self.cpu.get("last_bytes", i) for i in range(15))
        for o in self.observers:
            o.on_exit("undefined", icount, pc, int.from_bytes(code[:8], "little"))
        if code[:2] not in (b"\x0f\x0b", b"\x0f\xb9", b"\x0f\xff"):  # UD2, UD1, UD0 mean it
            self.undefined[code] = self.undefined.get(code, 0) + 1
        if not self.cpu.deliver(UD_VECTOR, None, 1):
            self._exit_triple()

    def _debug_stop(self, kind: str) -> None:
        self._stop = Stop(kind)
        if kind == "watch":
            self.cpu.set("watch_pending", 0)

    def undefined_opcodes(self) -> list[tuple[str, str, int]]:
        """Undefined instructions that the guest executed: bytes, disassembly as 64-bit
        code, times.
        """
        import capstone

        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        out = []
        for code, times in self.undefined.items():
            found = next(engine.disasm(code, 0), None)
            text = f"{found.mnemonic} {found.op_str}".strip() if found else "(unknown)"
            n = found.size if found else 15
            out.append((code[:n].hex(" "), text, times))
        return out

    def _exit_triple(self) -> None:
        for o in self.observers:
            o.on_exit("triple-fault", self.clock.icount, self.cpu._q[_RIP], 0)
        cpu = self.cpu
        what = f"the guest triple-faulted at {cpu.get('rip'):#x}"
        if cpu.get("fault_row") >= lay.MOST_FAULTS and cpu.get("fault_icount") == cpu.icount:
            what = (
                f"the guest does nothing but raise exceptions: the handler at {cpu.get('rip'):#x}"
                " faults before an instruction of it is done"
            )
        self._stop = Stop("triple-fault", 0, what)

    # -- state

    def cpu_state(self) -> dict[str, list[int]]:
        """The architectural state of the processor, by field."""
        cpu = self.cpu
        out: dict[str, list[int]] = {}
        for name in STATE_FIELDS:
            if name in ("cc_dst", "cc_src", "cc_op"):
                continue
            _at, ty, count = CPU.fields[name]
            out[name] = [cpu.get(name, i) for i in range(count)] if bits_of(ty) else []
        if cpu.get("acc_icount") != cpu.icount:
            for name in ("acc_icount", "acc_count", "acc_cursor", "acc_value"):
                out[name] = [0] * len(out[name])
        out["eflags"] = [cpu.get("rflags")]
        return out

    def pending_state(self) -> tuple[bool, bool]:
        """Halted, and an NMI on its way."""
        return self._halted, self._nmi

    def restore_pending(self, state: tuple[bool, bool]) -> None:
        """The reverse of `pending_state`."""
        self._halted, self._nmi = state
        if self._nmi:
            self.set_nmi()
        self._stop = self._moment = None
        self.cpu.set("fault_row", 0)
        self._resets = False

    def save(self) -> Snapshot:
        """A snapshot of everything, between two calls of `run` (see snapshot.py)."""
        return snapshot.save(self)

    def restore(self, state: Snapshot) -> None:
        """Go back to a snapshot of this machine, or of one of the same configuration."""
        snapshot.restore(self, state)

    def digest(self) -> bytes:
        """32 bytes over processor, RAM, devices and clock: equal states have equal digests."""
        h = hashlib.blake2b(digest_size=32)
        state = {
            "cpu": self.cpu_state(),
            "clock": self.clock.save(),
            "halted": self._halted,
            "nmi": self._nmi,
            "msrs": self.system.msrs.save(),
            "devices": {n: _digest_state(d) for n, d in self.devices.items()},
        }
        h.update(json.dumps(state, sort_keys=True, default=_plain).encode())
        for at, chunk in snapshot.nonzero_chunks(self.cpu):
            h.update(at.to_bytes(8, "little"))
            h.update(chunk)
        return h.digest()


def _never() -> None:
    raise AssertionError("an exit that does not leave the engine")


def _digest_state(device: Device) -> Any:
    """What a device gives to the digest: `digest_state` where its state is too large, or `save`."""
    return getattr(device, "digest_state", device.save)()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return value.hex()
    raise TypeError(f"expected plain values in a device's state, not {value!r}")
