"""String instructions in chunks, on devices and over faults; ports and who may use them; flags."""

from __future__ import annotations

import pytest

pytest.importorskip("unicorn")

from tests.core.oracle import CODE, DATA, TABLES, Pair
from workbench.core.engine import Cpu
from workbench.core.layout import ARITH, CF, DF, IF, IOPL, TF, ZF

HOLE = 0x60000  # a page without RAM
TSS = 0x70000
FAR = 0x200000  # this linear page is mapped to RAM, the next one is absent
FAR_RAM = 0x50000


def machine(cpl: int = 0) -> Cpu:
    """A processor in 64-bit mode with a hole for a device, and a linear page that is absent."""
    cpu = Pair(64).cpu
    cpu.set_page_kind(HOLE, 0x1000, 0)
    user = 4 if cpl else 0
    for at, entry in (
        (TABLES, TABLES + 0x1000 | 7),
        (TABLES + 0x1000, TABLES + 0x2000 | 7),
        (TABLES + 0x2000, 0x83 | user),
        (TABLES + 0x2008, TABLES + 0x3000 | 7),
        (TABLES + 0x3000, FAR_RAM | 3 | user),
        (TABLES + 0x3008, 0),
    ):
        cpu.write_phys(at, entry.to_bytes(8, "little"))
    cpu.set("cr3", TABLES)
    if cpl:
        cpu.set_segment("ss", 3, 0, 0xFFFFFFFF, 0xC0F3)
        cpu.set_segment("cs", 3, 0, 0xFFFFFFFF, 0xA0FB)
    cpu.set("rsp", DATA + 0x1000)
    return cpu


def place(cpu: Cpu, code: str, **regs: int) -> None:
    """Put code (hex) where the processor will run, and registers."""
    cpu.write_phys(CODE, bytes.fromhex(code) + b"\x90" * 32)
    cpu.set("rip", CODE)
    for name, value in regs.items():
        cpu.set(name, value)


def finish(cpu: Cpu, reads: list[int], end: int) -> list[tuple[int, ...]]:
    """Step to RIP `end`; the device accesses (retired, address, size, write, value)."""
    start = cpu.icount
    log: list[tuple[int, ...]] = []
    for _ in range(1000):
        if cpu.get("rip") == end:
            return log
        reason = cpu.run(cpu.icount + 1)
        if reason == "mmio":
            address, size, is_write, value = cpu.exit_info[:4]
            if is_write:
                log.append((cpu.icount - start, address, size, 1, value))
                cpu.access_result(0)
            else:
                log.append((cpu.icount - start, address, size, 0, reads[0]))
                cpu.access_result(reads.pop(0))
        elif reason != "budget":
            raise AssertionError(reason)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("prefix", ["", "f3"])
@pytest.mark.parametrize("code", ["aa", "ac", "a4", "ae", "a6"])
def test_bytes_at_the_very_first_address(code: str, prefix: str) -> None:
    cpu = machine()
    cpu.write_phys(0, b"\x55" * 8)
    place(cpu, prefix + code, rsi=0, rdi=0, rcx=3, rax=0x55)
    finish(cpu, [], CODE + len(prefix + code) // 2)
    moved = 3 if prefix else 1
    assert cpu.get("rsi") == (moved if code in ("ac", "a4", "a6") else 0)
    assert cpu.get("rdi") == (moved if code != "ac" else 0)
    assert cpu.get("rcx") == 3 - (moved if prefix else 0)
    assert cpu.read_phys(0, 8) == b"\x55" * 8


def map_the_last_page(cpu: Cpu) -> None:
    """Linear 0xFFFFFFFFFFFFF000 is at 0x51000; the table lies behind the others."""
    for at, entry in (
        (TABLES + 0xFF8, TABLES + 0x1000 | 7),
        (TABLES + 0x1FF8, TABLES + 0x2000 | 7),
        (TABLES + 0x2FF8, TABLES + 0x4000 | 7),
        (TABLES + 0x4FF8, 0x51003),
    ):
        cpu.write_phys(at, entry.to_bytes(8, "little"))
    cpu.set("cr3", TABLES)


def test_the_very_last_address() -> None:
    cpu = machine()
    map_the_last_page(cpu)
    cpu.write_phys(0x20000, b"abcd")
    place(cpu, "a5", rsi=0x20000, rdi=-1 & (1 << 64) - 1)  # movsd: the rest goes to address 0
    finish(cpu, [], CODE + 1)
    assert cpu.read_phys(0x51FFF, 1) + cpu.read_phys(0, 3) == b"abcd"
    assert cpu.get("rdi") == 3
    place(cpu, "ae", rdi=-1 & (1 << 64) - 1, rax=ord("a"))  # scasb
    finish(cpu, [], CODE + 1)
    assert cpu.get("rdi") == 0
    assert cpu.get("rflags") & ZF
    place(cpu, "d7", rbx=-5 & (1 << 64) - 1, rax=4)  # xlat
    finish(cpu, [], CODE + 1)
    assert cpu.get("rax") == ord("a")


@pytest.mark.parametrize("code", ["aa", "f3ac", "d7", "0ff7c1"])  # the last one: MASKMOVQ
def test_the_first_address_that_is_not_canonical(code: str) -> None:
    cpu = machine()
    place(cpu, code, rsi=1 << 63, rdi=1 << 63, rbx=1 << 63, rax=0, rcx=2)
    assert cpu.run(cpu.icount + 1) == "triple-fault"  # there is no handler for the #GP
    assert cpu.get("rdi") == 1 << 63


def test_long_copy_is_cut_into_chunks() -> None:
    cpu = machine()
    data = bytes(n * 7 & 0xFF for n in range(10000))
    cpu.write_phys(0x20001, data)
    place(cpu, "f3a4", rsi=0x20001, rdi=0x30003, rcx=10000)
    start = cpu.icount
    finish(cpu, [], CODE + 2)
    assert cpu.read_phys(0x30003, 10000) == data
    assert cpu.icount - start == 3
    assert (cpu.get("rsi"), cpu.get("rdi"), cpu.get("rcx")) == (0x22711, 0x32713, 0)


def test_one_run_is_the_same_as_single_steps() -> None:
    states = []
    for step in (1, 100):
        cpu = machine()
        cpu.write_phys(0x20000, b"abc" * 4000)
        place(cpu, "f348a548ffc0", rsi=0x20000, rdi=0x20003, rcx=1400, rax=0)
        for _ in range(100 // step):
            cpu.run(cpu.icount + step)
            if cpu.get("rax"):
                break
        states.append((cpu.read_phys(0x20000, 12000), cpu.get("rdi")))
    assert states[0] == states[1]


def test_overlapping_copies_go_element_by_element() -> None:
    cpu = machine()
    cpu.write_phys(0x20000, b"abcdefgh" + bytes(16))
    place(cpu, "f3a4", rsi=0x20000, rdi=0x20001, rcx=16)
    finish(cpu, [], CODE + 2)
    assert cpu.read_phys(0x20000, 17) == b"a" * 17
    cpu.write_phys(0x20000, b"abcdefghijklmnop")
    place(cpu, "f3a4", rsi=0x2000B, rdi=0x2000F, rcx=12, eflags=DF | 2)
    finish(cpu, [], CODE + 2)
    assert cpu.read_phys(0x20000, 16) == b"abcdabcdefghijkl"


def test_fault_in_the_middle_keeps_the_progress() -> None:
    cpu = machine()
    place(cpu, "f3aa", rdi=FAR + 0xFF0, rcx=40, rax=0x5A)
    assert cpu.run(cpu.icount + 1) == "triple-fault"
    assert (cpu.get("rdi"), cpu.get("rcx")) == (FAR + 0x1000, 24)
    assert cpu.read_phys(FAR_RAM + 0xFF0, 16) == b"\x5a" * 16


def test_device_elements_retire_one_by_one() -> None:
    cpu = machine()
    place(cpu, "f3ab", rdi=HOLE - 8, rcx=5, rax=0x11223344)
    log = finish(cpu, [], CODE + 2)
    assert log == [(n + 1, HOLE + 4 * n, 4, 1, 0x11223344) for n in range(3)]
    assert cpu.read_phys(HOLE - 8, 8) == bytes.fromhex("4433221144332211")
    place(cpu, "f366a5", rsi=HOLE, rdi=0x20000, rcx=3)
    log = finish(cpu, [0x1111, 0x2222, 0x3333], CODE + 3)
    assert log == [(n, HOLE + 2 * n, 2, 0, 0x1111 * (n + 1)) for n in range(3)]
    assert cpu.read_phys(0x20000, 6) == bytes.fromhex("111122223333")


def test_read_modify_write_of_a_device_reads_once() -> None:
    cpu = machine()
    place(cpu, "0103", rbx=HOLE + 8, rax=5)
    assert finish(cpu, [0x10], CODE + 2) == [(0, HOLE + 8, 4, 0, 0x10), (0, HOLE + 8, 4, 1, 0x15)]
    # from one device register to another: a load, then a store
    place(cpu, "a4", rsi=HOLE, rdi=HOLE + 1)
    assert finish(cpu, [0x77], CODE + 1) == [(0, HOLE, 1, 0, 0x77), (0, HOLE + 1, 1, 1, 0x77)]


def test_compare_ends_at_the_difference() -> None:
    cpu = machine()
    cpu.write_phys(0x20000, b"x" * 5000)
    cpu.write_phys(0x30000, b"x" * 4900 + b"y" + b"x" * 99)
    place(cpu, "f3a6", rsi=0x20000, rdi=0x30000, rcx=5000)
    finish(cpu, [], CODE + 2)
    assert (cpu.get("rcx"), cpu.get("rflags") & (CF | ZF)) == (99, CF)
    place(cpu, "f2ae", rdi=0x30000, rcx=5000, rax=ord("y"))
    finish(cpu, [], CODE + 2)
    assert (cpu.get("rcx"), cpu.get("rdi"), cpu.get("rflags") & ZF) == (99, 0x30000 + 4901, ZF)
    place(cpu, "f3a6", rcx=0, rflags=CF)
    finish(cpu, [], CODE + 2)
    assert cpu.get("rflags") & ARITH == CF


def test_ports() -> None:
    cpu = machine()
    place(cpu, "ecee", rdx=0x3F8, rax=0xAABBCC00)
    start = cpu.icount
    assert cpu.run(start + 10) == "pio"
    assert cpu.exit_info == [0x3F8, 1, 0, 0, 0, 0]
    assert cpu.icount == start
    cpu.access_result(0x5A)
    assert cpu.run(start + 10) == "pio"
    assert (cpu.icount - start, cpu.get("rax")) == (1, 0xAABBCC5A)
    assert cpu.exit_info == [0x3F8, 1, 1, 0x5A, 0, 0]
    cpu.access_result(0)
    assert cpu.run(start + 2) == "budget"
    assert cpu.get("rip") == CODE + 2


def test_string_input_leaves_once_a_page() -> None:
    cpu = machine()
    place(cpu, "f36d", rdx=0x1F0, rdi=0x20F00, rcx=100)
    assert cpu.run(cpu.icount + 1) == "pio"
    assert cpu.exit_info == [0x1F0, 4, 0, 4, 64, 0x20F00]
    cpu.access_result(0)
    assert cpu.run(cpu.icount + 1) == "budget"
    assert (cpu.get("rdi"), cpu.get("rcx"), cpu.get("rip")) == (0x21000, 36, CODE)
    assert cpu.run(cpu.icount + 1) == "pio"
    assert cpu.exit_info[4:] == [36, 0x21000]
    place(cpu, "f36e", rdx=0x1F0, rsi=0x20010, rcx=0x20, eflags=DF | 2)
    assert cpu.run(cpu.icount + 1) == "pio"
    assert cpu.exit_info == [0x1F0, 1, 1, 0xFFFFFFFFFFFFFFFF, 0x11, 0x20010]


def test_string_input_to_an_absent_page_does_not_touch_the_port() -> None:
    cpu = machine()
    place(cpu, "f36c", rdx=0x1F0, rdi=FAR + 0x1000, rcx=4)
    assert cpu.run(cpu.icount + 1) == "triple-fault"
    assert cpu.get("rcx") == 4


def user_out(port: int, bitmap: dict[int, int], flags: int = 2, size: str = "ee") -> str:
    """How an OUT at CPL 3 leaves."""
    cpu = machine(3)
    cpu.set_segment("tr", 0x40, TSS, 0x68 + 0x80, 0x8B)
    cpu.write_phys(TSS + 102, (0x68).to_bytes(2, "little") + bytes(0x80) + b"\xff")
    for at, byte in bitmap.items():
        cpu.write_phys(TSS + 0x68 + at, bytes([byte]))
    place(cpu, size, rdx=port, eflags=flags)
    return cpu.run(cpu.icount + 1)


def test_io_permission_bitmap() -> None:
    assert user_out(0x80, {}) == "pio"
    assert user_out(0x80, {0x10: 1}) == "triple-fault"
    assert user_out(0x80, {0x10: 1}, flags=IOPL | 2) == "pio"
    assert user_out(0x86, {0x11: 2}, size="ef") == "triple-fault"  # 0x89 is one of four
    assert user_out(0x85, {0x11: 2}, size="ef") == "pio"
    assert user_out(0x3F7, {}) == "pio"
    assert user_out(0x1000, {}) == "triple-fault"  # beyond the limit


def test_popf_and_cli_by_privilege() -> None:
    everything = 0x3F7FD7 & ~TF
    for cpl, iopl, may in ((0, 0, IF | IOPL), (3, 0, 0), (3, 3, IF)):
        cpu = machine(cpl)
        old = iopl << 12 | 2
        place(cpu, "9d", rsp=DATA, rflags=old)
        cpu.write_phys(DATA, everything.to_bytes(8, "little"))
        assert cpu.run(cpu.icount + 1) == "budget"
        new = cpu.get("rflags")
        assert new & (IF | IOPL) == old & (IF | IOPL) | may
        assert new & 0x1F0000 == 0x40000 & everything  # AC; RF, VM, VIF and VIP stay clear
        assert new & 0x200000
    cpu = machine(3)
    place(cpu, "fa", rflags=2)
    assert cpu.run(cpu.icount + 1) == "triple-fault"


def test_sti_holds_interrupts_off_for_one_instruction() -> None:
    cpu = machine()
    place(cpu, "fb9090", rflags=2)
    cpu.set("irq_pending", 1)
    start = cpu.icount
    assert cpu.run(start + 10) == "irq"
    assert (cpu.icount - start, cpu.get("rip")) == (2, CODE + 2)


@pytest.mark.parametrize(
    ("limit", "expand_down", "di", "counts"),
    [
        (0xFFFF, False, 0x0FF0, [8, 92]),  # to the end of the page, then the rest
        (0xFFFF, False, 0x2000, [100]),
        (0x200F, False, 0x2000, [8]),  # the segment ends before the page does
        (0x1FFF, True, 0x2000, [1, 1]),  # a segment that expands down goes by elements
    ],
)
def test_ins_in_a_16_bit_segment_comes_in_runs(
    limit: int, expand_down: bool, di: int, counts: list[int]
) -> None:
    """One exit for the elements on a page, within the segment's limit, in real mode too."""
    cpu = Cpu(ram_bytes=1 << 20)
    cpu.write_phys(0x1000, bytes.fromhex("f36d f4"))
    cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    cpu.set_segment("es", 0x3000, 0x30000, limit, 0x97 if expand_down else 0x93)
    for name, value in (("rip", 0x1000), ("rdx", 0x1F0), ("rdi", di), ("rcx", 100)):
        cpu.set(name, value)
    for wanted in counts:
        assert cpu.run(cpu.icount + 10) == "pio"
        assert cpu.exit_info[4:6] == [wanted, 0x30000 + cpu.get("rdi")]
        cpu.access_result(0)
