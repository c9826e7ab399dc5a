"""Every x87 form against the host CPU, over special and random states; faults; layouts."""

from __future__ import annotations

import random

import pytest

from tests.core.x87_host import CR0, Guest, Host, State, random_state
from workbench.core import sem_x87
from workbench.core import x87_helpers as x
from workbench.core.engine import Cpu
from workbench.core.layout import CR0_EM, CR0_MP, CR0_NE, CR0_PE, CR0_TS, CR4_OSFXSR, MF, NM
from workbench.core.optable import SIZES

ROUNDS = 150
FORMS: list[tuple[str, bytes]] = []
for _opcode, _forms in sem_x87.STACK_FORMS.items():
    for _reg, _name in _forms.items():
        FORMS += [(f"{_name} st{i}", bytes((_opcode, 0xC0 + _reg * 8 + i))) for i in (0, 1, 5)]
FORMS += [(n, c.to_bytes(2, "big")) for c, n in sem_x87.SINGLE_FORMS.items()]
for (_opcode, _reg), (_name, _letter) in [*sem_x87.LOADS.items(), *sem_x87.STORES.items()]:
    FORMS.append((f"{_name} m{SIZES[_letter] * 8}", bytes((_opcode, _reg << 3 | 2))))


@pytest.fixture(scope="module")
def ours() -> Guest:
    return Guest()


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.mark.parametrize(("name", "insn"), FORMS, ids=[f"{f[0]} {f[1].hex()}" for f in FORMS])
def test_form_equals_host(ours: Guest, host: Host, name: str, insn: bytes) -> None:
    rng = random.Random(insn.hex())
    for _ in range(ROUNDS):
        state = random_state(rng)
        expected, got = host.run(insn, state), ours.run(insn, state)
        if "comi" in name and got.sw & ~got.cw & x.SW_IE:
            assert (
                got.flags == state.flags
            )  # as in the SDM; AMD processors set ZF PF CF all the same
            expected.flags = got.flags
        assert got.seen() == expected.seen(), f"{name} from {state.seen()}"


CONTROL = {
    "fnclex": b"\xdb\xe2",
    "fninit": b"\xdb\xe3",
    "fnstcw": b"\xd9\x3a",
    "fnstsw": b"\xdd\x3a",
    "fldcw": b"\xd9\x2a",
    "fneni": b"\xdb\xe0",
    "fndisi": b"\xdb\xe1",
    "fnsetpm": b"\xdb\xe4",
}


@pytest.mark.parametrize("insn", CONTROL.values(), ids=CONTROL.keys())
def test_control_equals_host(ours: Guest, host: Host, insn: bytes) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        state = random_state(rng)
        if insn[0] == 0xDB:
            state.sw = with_summary(rng.getrandbits(16), state.cw)  # those do not wait
        assert ours.run(insn, state).seen() == host.run(insn, state).seen()


def with_summary(sw: int, cw: int) -> int:
    """ES and B as the processor shows them."""
    return sw & 0x7F7F | (0x8080 if sw & ~cw & 0x3F else 0)


def test_status_word_to_ax(ours: Guest) -> None:
    state = State([0] * 8, 0x340, 0xFFFF)
    ours.put(state)
    ours.cpu.set("rax", 0x1122334455667788)
    assert ours.go(b"\xdf\xe0") is None
    assert ours.cpu.get("rax") == 0x112233445566FFFF


ENVIRONMENT = {
    "fnstenv": (b"\xd9\x32", b"\xd9\x22", 28),
    "fnstenv16": (b"\x66\xd9\x32", b"\x66\xd9\x22", 14),
    "fnsave": (b"\xdd\x32", b"\xdd\x22", 108),
    "fnsave16": (b"\x66\xdd\x32", b"\x66\xdd\x22", 94),
}


def without_pointers(image: bytes, wide: bool) -> bytes:
    """An environment without the last instruction: AMD keeps it only for a pending exception."""
    return image[:12] + image[28:] if wide else image[:6] + image[14:]


@pytest.mark.parametrize(("save", "load", "n"), ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
@pytest.mark.parametrize("address", [Guest.OPERAND, 0x12FF6], ids=["one page", "two pages"])
def test_environment_equals_host(
    ours: Guest, host: Host, save: bytes, load: bytes, n: int, address: int
) -> None:
    wide = n in (28, 108)
    rng = random.Random(n)
    for _ in range(ROUNDS):
        state = random_state(rng)
        state.sw = with_summary(rng.getrandbits(16), state.cw)
        state.memory = bytes(n + 4)
        after = host.run(save, state)
        ours.put(state)
        ours.write(bytes(n + 4), address)
        assert ours.go_at(save, address) is None
        got = ours.take()
        assert got.seen() | {"memory": ""} == after.seen() | {"memory": ""}
        stored = ours.read(n + 4, address)
        assert without_pointers(stored, wide) == without_pointers(after.memory, wide)
        # and back, from a state with nothing pending
        other = random_state(rng)
        other.memory = after.memory[:n]
        expected = host.run(load, other)
        ours.put(other)
        ours.write(other.memory, address)
        assert ours.go_at(load, address) is None
        assert ours.take().seen() | {"memory": ""} == expected.seen() | {"memory": ""}


def test_last_instruction_pointers(ours: Guest) -> None:
    ours.put(State([0] * 8))
    assert ours.go(b"\xd9\x02") is None  # fld dword [rdx]
    assert ours.go(b"\xd9\xe1") is None  # fabs
    assert ours.go(b"\xd9\x32") is None
    image = ours.read(28)
    assert int.from_bytes(image[12:16], "little") == Guest.CODE
    assert int.from_bytes(image[20:24], "little") == Guest.OPERAND


def test_exceptions_of_availability(ours: Guest) -> None:
    ours.put(State([0] * 8))
    for insn in (
        b"\xd9\xe8",
        b"\xd9\x02",
        b"\xd9\x12",
        b"\xdb\xe3",
        b"\xdf\xe0",
        b"\xd9\x32",
        b"\xdd\x22",
        b"\xd9\x3a",
    ):
        for bit in (CR0_TS, CR0_EM):
            ours.cpu.set("cr0", CR0 | bit)
            assert ours.go(insn) == NM
    for bits, vector in ((CR0_TS, None), (CR0_MP, None), (CR0_EM, None), (CR0_TS | CR0_MP, NM)):
        ours.cpu.set("cr0", CR0 | bits)
        assert ours.go(b"\x9b") == vector
    ours.cpu.set("cr0", CR0)


def test_pending_exception_is_reported_by_the_next_waiting_instruction(ours: Guest) -> None:
    one_over_zero = State([1 << 63 | 0x3FFF << 64, 0, *[0] * 6], cw=0x37B, tag=0)
    ours.put(one_over_zero)
    assert ours.go(b"\xd8\xf1") is None  # fdiv st0, st1: #Z, unmasked
    after = ours.take()
    assert after.sw & 0x80FF == 0x8084
    assert after.regs == one_over_zero.regs
    for insn in (
        b"\x9b",
        b"\xd9\xe8",
        b"\xd9\x02",
        b"\xd9\x1a",
        b"\xd9\x2a",
        b"\xd9\x22",
        b"\xdd\x22",
        b"\xdb\xf1",
        b"\xd9\xd0",
    ):
        assert ours.go(insn) == MF
        assert ours.take().seen() == after.seen()
    for insn in (b"\xdf\xe0", b"\xd9\x3a", b"\xdd\x3a", b"\xdb\xe0"):
        assert ours.go(insn) is None
    assert ours.go(b"\xdb\xe2") is None  # fnclex
    assert ours.go(b"\x9b") is None


def test_without_numeric_error_reporting_instructions_go_on(ours: Guest) -> None:
    ours.put(State([1 << 63 | 0x3FFF << 64, 0, *[0] * 6], cw=0x37B, tag=0))
    ours.cpu.set("cr0", CR0 & ~CR0_NE)
    assert ours.go(b"\xd8\xf1") is None
    assert ours.go(b"\xd9\xe1") is None
    assert ours.take().sw & 0x80FF == 0x8084
    ours.cpu.set("cr0", CR0)


def test_store_that_faults_changes_nothing(ours: Guest) -> None:
    for insn in (
        b"\xd9\x1a",
        b"\xdd\x1a",
        b"\xdb\x3a",
        b"\xdf\x32",
        b"\xdf\x3a",
        b"\xd9\x32",
        b"\xdd\x32",
    ):
        state = random_state(random.Random(3))
        state.cw |= 0x3F
        state.sw = 0
        ours.put(state)
        for address in (
            0x40000000,
            0x1FFFFD,
        ):  # nothing there; the first page is, the second is not
            assert ours.go_at(insn, address) == 14
            assert ours.take().seen() == state.seen()


@pytest.mark.parametrize(
    "insn",
    [
        "d9d1",
        "d9ef",
        "dbe5",
        "dbf8",
        "d9e2",
        "dae8",
        "ded8",
        "dfe1",
        "ddf0",
        "dff8",
        "d90a",
        "db22",
        "dd2a",
    ],
)
def test_undefined(ours: Guest, insn: str) -> None:
    assert ours.go(bytes.fromhex(insn)) == 6


def test_reset_state(ours: Guest) -> None:
    assert {k: ours.cpu.get(k) for k in x.INIT_STATE} != {}
    ours.put(random_state(random.Random(4)))
    assert ours.go(b"\xdb\xe3") is None
    assert {k: ours.cpu.get(k) for k in x.INIT_STATE} == x.INIT_STATE


@pytest.fixture(scope="module")
def real() -> Cpu:
    """A processor in real-address mode: code at 0x1000, stack and data in the first 64 KiB."""
    cpu = Cpu(1 << 20)
    for name in ("es", "ss", "ds"):
        cpu.set_segment(name, 0, 0, 0xFFFF, 0x93)
    cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    return cpu


def run_real(cpu: Cpu, code: str) -> None:
    cpu.write_phys(0x1000, bytes.fromhex(code) + b"\xf4")
    cpu.set("rip", 0x1000)
    assert cpu.run(cpu.icount + 20) == "hlt"


def test_environment_in_real_mode(real: Cpu) -> None:
    cpu = real
    run_real(
        cpu, "dbe3 d906 0020 d936 0030 66d936 0031"
    )  # fninit; fld [2000]; fnstenv [3000]; the same, 32 bits
    assert cpu.read_phys(0x3000, 14).hex(" ", 2) == "7f03 0038 ff7f 0210 0000 0020 0000"
    assert (
        cpu.read_phys(0x3100, 28).hex(" ", 4)
        == "7f03ffff 0038ffff ff7fffff 0210ffff 00000000 0020ffff 00000000"
    )
    for wide, image in (
        (False, "7f03 0038 ff7f 3412 5534 7856 00a0"),
        (True, "7f03ffff 0038ffff ff7fffff 3412ffff 55441302 7856ffff 00a0ab00"),
    ):
        prefix = "66" if wide else ""
        cpu.write_phys(0x3000, bytes.fromhex(image))
        run_real(cpu, f"{prefix}d926 0030 {prefix}d936 0040")
        assert cpu.read_phys(0x4000, len(bytes.fromhex(image))).hex() == image.replace(" ", "")
        assert cpu.get("fpu_op") == 0x455
        assert cpu.get("fpu_ip") == (0x2134_1234 if wide else 0x31234)
        assert cpu.get("fpu_dp") == (0xABA_5678 if wide else 0xA5678)


def test_load_from_a_read_only_segment() -> None:
    cpu = Cpu(1 << 20)
    for name in ("es", "ss", "ds"):
        cpu.set_segment(name, 0x10, 0, 0xFFFFFFFF, 0xC093)
    cpu.set_segment("cs", 8, 0, 0xFFFFF, 0xC09B)
    cpu.set("cr0", CR0_PE | CR0_NE)
    cpu.set("cr4", CR4_OSFXSR)
    cpu.write_phys(0x2000, b"\0\0\x80\x3f")
    # fninit; fld dword cs:[2000h]; fldcw cs:[1000h]; fldenv; frstor; fxrstor, all from CS
    cpu.write_phys(
        0x1000,
        bytes.fromhex(
            "dbe3 2ed90500200000 2ed92d00300000 2ed92500300000 2edd2500300000 2e0fae0d00300000 f4"
        ),
    )
    cpu.write_phys(0x3000, b"\x7f\x03")
    cpu.set("rip", 0x1000)
    assert cpu.run(10) == "hlt"
    # and a store there is refused: without a handler that ends in a triple fault
    cpu.write_phys(0x1000, bytes.fromhex("2ed91d00200000 f4"))
    cpu.set("rip", 0x1000)
    assert cpu.run(cpu.icount + 10) == "triple-fault"


def test_programs_equal_host(ours: Guest, host: Host) -> None:
    rng = random.Random(20)
    for _ in range(40):
        state = random_state(rng)
        state.cw |= 0x3F
        state.sw &= 0x7F7F
        program = b"".join(rng.choice(FORMS)[1] for _ in range(50))
        expected, got = host.run(program, state), ours.run(program, state)
        assert got.seen() == expected.seen(), program.hex()


def test_the_fpu_of_this_process_stays_as_the_abi_wants_it(ours: Guest, host: Host) -> None:
    ours.run(b"\xd9\xe8", State([0] * 8, cw=0x40))
    assert host.control_word() == 0x37F
