"""Machine: when interrupts and inputs land."""

from __future__ import annotations

import pytest

from workbench.core.bus import Window
from workbench.core.config import MachineConfig
from workbench.core.machine import Machine, Observer

CODE, ISR, PORT, VECTOR = 0x1000, 0x2000, 0x10, 0x20


class OneLine:
    """A controller with one line, raised by a write to its port and lowered when acknowledged."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.level = False
        machine.irq = self
        machine.pio.map(Window("line", "line", PORT, 1, self.read, self.write))

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.level = True
        self.machine.set_intr(True)

    def pending(self) -> bool:
        return self.level

    def acknowledge(self) -> int:
        self.level = False
        self.machine.set_intr(False)
        return VECTOR


class Interrupts(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        self.seen.append((icount, pc))


def real_mode(code: str) -> Machine:
    machine = Machine(MachineConfig(ram_bytes=1 << 20))
    machine.memory.write(CODE, bytes.fromhex(code))
    machine.memory.write(ISR, bytes.fromhex("cf"))  # iret
    machine.memory.write(VECTOR * 4, ISR.to_bytes(4, "little"))
    machine.cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    machine.cpu.set("rip", CODE)
    machine.cpu.set("rsp", 0x8000)
    return machine


@pytest.mark.parametrize("cut", [None, 2, 3])
def test_interrupt_of_an_access_comes_right_behind_its_instruction(cut: int | None) -> None:
    # sti; nop; out 0x10, al; inc bx; inc bx; inc bx; hlt
    machine = real_mode("fb 90 e6 10 43 43 43 f4")
    OneLine(machine)
    watcher = Interrupts()
    machine.observers.append(watcher)
    if cut is not None:
        machine.run(cut)
    machine.run(8)
    assert watcher.seen == [(3, CODE + 4)]


def test_an_input_is_taken_once_at_a_moment() -> None:
    machine = real_mode("90 90 90 90 f4")
    taken: list[tuple[int, bytes]] = []
    machine.inputs.register("x", lambda kind, data: taken.append((machine.clock.icount, data)))
    machine.run(2)
    machine.inputs.post("x", "k", b"late")  # the moment (2, t) is over
    machine.run(2)
    assert taken == []
    machine.run(3)
    assert taken == [(3, b"late")]


def test_an_input_wakes_an_idle_guest_before_its_deadline() -> None:
    machine = real_mode("fb f4 43 f4")  # sti; hlt; inc bx; hlt
    line = OneLine(machine)
    fired: list[int] = []
    machine.clock.timer("far", lambda: fired.append(machine.clock.now_ps)).arm(10**12)
    taken: list[tuple[int, int, list[int]]] = []

    def take(kind: str, data: bytes) -> None:
        taken.append((machine.clock.now_ps, machine.cpu.get("rbx"), fired.copy()))
        line.write(0, 1, 0)

    machine.inputs.register("x", take)
    asked: list[int] = []

    def rest(ps: int) -> int:
        asked.append(ps)
        if ps != 10**12 or taken:
            return ps
        machine.inputs.post("x", "k", b"")
        return 5 * 10**9

    machine.rest = rest
    assert machine.run(100).kind == "halted"
    assert taken == [(5 * 10**9, 0, [])]
    assert (asked, fired) == ([10**12, 10**12], [10**12])
    assert machine.cpu.get("rbx") == 1


def test_an_input_that_waits_is_taken_before_time_goes_on() -> None:
    machine = real_mode("fb f4")  # sti; hlt
    taken: list[int] = []
    machine.inputs.register("x", lambda kind, data: taken.append(machine.clock.now_ps))
    machine.clock.timer("far", lambda: None).arm(10**12)

    def late(kind: str, data: bytes) -> None:
        machine.inputs.post("x", "k", b"")

    machine.inputs.register("y", late)
    machine.inputs.post("y", "k", b"")
    machine.run(100)
    assert len(taken) == 1
    assert taken[0] < 10**9


DR7_CODE_0, DR7_WRITE_0_WORD = 0x1, 0x1 | 0x1 << 16 | 0x1 << 18


def with_debug_handler(code: str) -> Machine:
    """A machine whose #DB handler counts in SI and keeps the pushed IP in DI; EFLAGS.RF is set."""
    machine = real_mode(code)
    # inc si; mov bp, sp; mov di, [bp]; mov eax, dr6 -> ecx; iret
    machine.memory.write(0x3000, bytes.fromhex("46 89e5 8b7e00 0f21f1 cf"))
    machine.memory.write(1 * 4, (0x3000).to_bytes(4, "little"))
    return machine


def test_data_breakpoint_traps_behind_the_write() -> None:
    # mov [0x500], ax (word inside the watched range); inc bx; hlt
    machine = with_debug_handler("a3 00 05 43 f4")
    machine.cpu.set("dr", 0x500, 0)
    machine.cpu.set("dr", DR7_WRITE_0_WORD | 0x400, 7)
    machine.cpu.load_debug_registers()
    machine.run(100)
    assert (machine.cpu.get("rsi"), machine.cpu.get("rdi")) == (1, CODE + 3)
    assert machine.cpu.get("rcx") & 0xF == 1
    assert machine.cpu.get("rbx") == 1


def test_reads_and_neighbours_do_not_hit_a_write_breakpoint() -> None:
    # mov ax, [0x500]; mov [0x502], ax; hlt
    machine = with_debug_handler("a1 00 05 a3 02 05 f4")
    machine.cpu.set("dr", 0x500, 0)
    machine.cpu.set("dr", DR7_WRITE_0_WORD | 0x400, 7)
    machine.cpu.load_debug_registers()
    machine.run(100)
    assert machine.cpu.get("rsi") == 0


def test_code_breakpoint_faults_before_the_instruction() -> None:
    # nop; inc bx; inc bx; hlt; the handler takes the breakpoint away by clearing DR7
    machine = with_debug_handler("90 43 43 f4")
    # inc si; mov bp, sp; mov di, [bp]; mov dx, bx; mov eax, 0x400; mov dr7, eax; iret
    handler = "46 89e5 8b7e00 89da 66b800040000 0f23f8 cf"
    machine.memory.write(0x3000, bytes.fromhex(handler))
    machine.cpu.set("dr", CODE + 2, 0)
    machine.cpu.set("dr", DR7_CODE_0 | 0x400, 7)
    machine.cpu.load_debug_registers()
    machine.run(100)
    assert (machine.cpu.get("rsi"), machine.cpu.get("rdi")) == (1, CODE + 2)
    assert (machine.cpu.get("rdx"), machine.cpu.get("rbx")) == (1, 2)


def test_much_output_at_once_is_heard_in_bounded_pieces() -> None:
    class Console(Observer):
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def on_console(self, device: str, data: bytes, icount: int) -> None:
            self.pieces.append(data)

    machine, console = Machine(MachineConfig(ram_bytes=1 << 20)), Console()
    machine.observers.append(console)
    data = bytes(range(256)) * 4096
    machine.console("hvc0", data)
    assert b"".join(console.pieces) == data
    assert max(map(len, console.pieces)) <= 1 << 16


@pytest.mark.parametrize(("length", "vector"), [(15, None), (16, 13), (40, 13)])
@pytest.mark.parametrize("start", [CODE, 0x1FF8])  # within a page, and across two
@pytest.mark.parametrize("before", [0, 1])
def test_an_instruction_of_more_than_15_bytes(
    length: int, vector: int | None, start: int, before: int
) -> None:
    machine = real_mode("f4")
    end, handler = 0x4000, 0x5000
    machine.memory.write(13 * 4, handler.to_bytes(4, "little"))
    machine.memory.write(6 * 4, end.to_bytes(4, "little"))
    for place in (end, handler):
        machine.memory.write(place, b"\xf4")
    code = b"\x90" * before + b"\x66" * (length - 1) + b"\x90\xf4"
    machine.memory.write(start, code)
    machine.cpu.set("rip", start)
    assert machine.run().kind == "halted"
    assert machine.cpu.get("rip") == (start + len(code) if vector is None else handler + 1)


@pytest.mark.parametrize("code", ["0f32", "0f01d0", "f4"])  # rdmsr, xgetbv, hlt
def test_a_fault_that_cannot_be_delivered_stops_the_machine(code: str) -> None:
    machine = real_mode(code)
    machine.cpu.set("rcx", 0x8766C)  # of a model-specific register that does not exist
    machine.cpu.set("idtr_limit", 0)
    if code == "f4":
        machine.set_nmi()
    stop = machine.run(until_icount=1000)
    assert (stop.kind, stop.reason) == ("triple-fault", f"the guest triple-faulted at {CODE:#x}")


@pytest.mark.parametrize(
    ("code", "vector"), [("f7f1", 0), ("0f0b", 6), ("0fff", 6)]
)  # div cx; ud2; ud0
def test_handlers_that_fault_at_once_come_to_an_end(code: str, vector: int) -> None:
    machine = real_mode(code)
    machine.cpu.set("rcx", 0)
    machine.cpu.set_segment("ss", 0, 0, 0xFFFFFFFF, 0xC093)  # room for the frames
    machine.cpu.set("rsp", 0xF0000)
    machine.memory.write(vector * 4, CODE.to_bytes(4, "little"))
    stop = machine.run(until_icount=1000)
    assert stop.kind == "triple-fault"
    assert f"the handler at {CODE:#x} faults before" in stop.reason
    assert machine.clock.icount == 0
