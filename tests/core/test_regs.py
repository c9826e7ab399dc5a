"""Register maps: checks at construction, access kinds, splitting, labels, words."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from workbench.core.regs import (
    RC,
    RESERVED,
    RO,
    W1C,
    WO,
    Explainer,
    Field,
    Indirect,
    Reg,
    RegBank,
    RegMap,
    RegMapError,
    Select,
    array,
    on_command,
    on_read,
    on_write,
)
from workbench.core.state import StateError

BMICX = Reg("BMICX", 0, 1, fields=(Field("SSBM", 0), Field("RWCON", 3)))
BMISX = Reg("BMISX", 2, 1, fields=(Field("BMIDEA", 0, access=RO), Field("IDEINTS", 2, access=W1C)))
BMIDTPX = Reg("BMIDTPX", 4, 4)
COUNT = Reg("COUNT", 8, 2, access=RC)
KEY = Reg("KEY", 10, 1, access=WO)
FIXED = Reg("FIXED", 11, 1, 0x5A, RESERVED)
SLOT = array("SLOT", 0x10, 4, count=4, stride=8)


@dataclass(slots=True)
class BankState:
    bmicx: int = 0
    bmisx: int = 0
    bmidtpx: int = 0
    count: int = 0
    slot: list[int] = field(default_factory=lambda: [0] * 4)


class Bank(RegBank[BankState]):
    MAP = RegMap("bmide", 0x30, (BMICX, BMISX, BMIDTPX, COUNT, KEY, FIXED, *SLOT))
    STATE = BankState

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []
        super().__init__()

    @on_write(BMICX)
    def _start_stop(self, old: int, new: int) -> None:
        self.log.append(("bmicx", old, new))

    @on_command(KEY)
    def _key(self, value: int) -> None:
        self.log.append(("key", value))

    @on_write(*SLOT)
    def _slot(self, index: int, old: int, new: int) -> None:
        self.log.append(("slot", index, old, new))


def test_exact_access_applies_masks_and_calls_the_handler() -> None:
    bank = Bank()
    bank.write(0, 1, 0xFF)
    assert bank.read(0, 1) == 0x09
    assert bank.log == [("bmicx", 0, 9)]


def test_w1c_and_ro_bits() -> None:
    bank = Bank()
    bank.state.bmisx = 5
    bank.write(2, 1, 0x01)
    assert bank.read(2, 1) == 5
    bank.write(2, 1, 0xFF)
    assert bank.read(2, 1) == 1


def test_read_clears() -> None:
    bank = Bank()
    bank.state.count = 0x1234
    assert bank.read(8, 2) == 0x1234
    assert bank.read(8, 2) == 0
    bank.write(8, 2, 7)
    assert bank.read(8, 2) == 0


def test_write_only_register_reads_as_fill_and_reserved_as_reset_value() -> None:
    bank = Bank()
    bank.write(10, 1, 0x42)
    bank.write(11, 1, 0x00)
    assert bank.log == [("key", 0x42)]
    assert bank.read(10, 2) == 0x5A00


def test_partial_write_keeps_the_rest() -> None:
    bank = Bank()
    bank.write(4, 4, 0x11223344)
    bank.write(5, 2, 0xABCD)
    assert bank.read(4, 4) == 0x11ABCD44
    assert bank.read(6, 1) == 0xAB


def test_partial_write_does_not_clear_w1c_bits_elsewhere() -> None:
    reg = Reg("STS", 0, 2, fields=(Field("LOW", 0, access=W1C), Field("HIGH", 8, access=W1C)))

    @dataclass(slots=True)
    class OneState:
        sts: int = 0x101

    class One(RegBank[OneState]):
        MAP = RegMap("one", 2, (reg,))
        STATE = OneState

    bank = One()
    bank.write(0, 1, 1)
    assert bank.state.sts == 0x100


def test_crossing_access_goes_to_each_register_in_order() -> None:
    bank = Bank()
    bank.state.bmisx = 4
    bank.write(0, 4, 0x00040001)
    assert (bank.state.bmicx, bank.state.bmisx) == (1, 0)
    bank.write(2, 8, 0x1234_5678_0000)
    assert bank.state.bmidtpx == 0x12345678


def test_gaps_read_as_fill() -> None:
    assert Bank().read(0x14, 4) == 0
    assert RegMap("x", 4, (BMICX,), fill=0xFF).fill == 0xFF


def test_array_registers_share_a_list() -> None:
    bank = Bank()
    bank.write(0x18, 4, 7)
    assert bank.state.slot == [0, 7, 0, 0]
    assert bank.log == [("slot", 1, 0, 7)]
    assert bank.read(0x18, 4) == 7


def test_state_round_trip() -> None:
    bank = Bank()
    bank.write(4, 4, 99)
    other = Bank()
    other.restore(bank.save())
    assert other.save() == bank.save()
    with pytest.raises(StateError, match="bmide: expected state of kind 'bmide', not 'ide'"):
        other.restore(bank.save() | {"kind": "ide"})


LCR = Reg("LCR", 3, 1, fields=(Field("DLAB", 7),))
RBR = Reg("RBR", 0, 1, access=RO, when="DLAB=0")
THR = Reg("THR", 0, 1, access=WO, when="DLAB=0")
DLL = Reg("DLL", 0, 1, when="DLAB=1")


@dataclass(slots=True)
class PortState:
    lcr: int = 0
    dll: int = 12
    sent: list[int] = field(default_factory=list)


class Port(RegBank[PortState]):
    SELECT = Select(LCR, "DLAB", {0: "DLAB=0", 1: "DLAB=1"})
    MAP = RegMap("port", 4, (LCR, RBR, THR, DLL), select=SELECT)
    STATE = PortState

    @on_read(RBR)
    def _receive(self) -> int:
        return 0x41

    @on_command(THR)
    def _send(self, value: int) -> None:
        self.state.sent.append(value)


def test_label_selects_among_registers_at_one_offset() -> None:
    port = Port()
    assert port.read(0, 1) == 0x41
    port.write(3, 1, 0x80)
    assert port.read(0, 1) == 12
    port.write(0, 1, 1)
    assert (port.state.dll, port.state.sent) == (1, [])
    saved = port.save()
    port.write(3, 1, 0)
    port.write(0, 1, 2)
    assert (port.state.dll, port.state.sent) == (1, [2])
    port.restore(saved)
    assert port.read(0, 1) == 1


def test_a_label_comes_before_none() -> None:
    default = Reg("OCW1", 0, 1)
    special = Reg("ICW2", 0, 1, when="init")
    regmap = RegMap("pic", 1, (default, special))
    assert regmap.find(0, 1, True) is default
    assert regmap.find(0, 1, True, "init") is special
    assert regmap.find(0, 1, True, "other") is default


def test_match_selects_by_value() -> None:
    icw1 = Reg("ICW1", 0, 1, access=WO, match=(0x10, 0x10))
    ocw2 = Reg("OCW2", 0, 1, access=WO, match=(0x18, 0))

    @dataclass(slots=True)
    class NoState:
        pass

    class Pic(RegBank[NoState]):
        MAP = RegMap("pic", 1, (icw1, ocw2))
        STATE = NoState
        seen: tuple[str, int] = ("", 0)

        @on_command(icw1)
        def _one(self, value: int) -> None:
            self.seen = ("icw1", value)

        @on_command(ocw2)
        def _two(self, value: int) -> None:
            self.seen = ("ocw2", value)

    pic = Pic()
    pic.write(0, 1, 0x11)
    assert pic.seen == ("icw1", 0x11)
    pic.write(0, 1, 0x20)
    assert pic.seen == ("ocw2", 0x20)
    pic.write(0, 1, 0x08)
    assert pic.seen == ("ocw2", 0x20)


def test_exact_register_may_overlap_others() -> None:
    data = Reg("DATA", 0, 2, exact=True)
    error = Reg("ERROR", 1, 1, access=RO)
    regmap = RegMap("ata", 8, (data, error))
    assert regmap.find(0, 2, False) is data
    assert regmap.find(1, 1, False) is error
    assert regmap.explain(0, 4, 0x1234, False) == "+0x0=0x34 ERROR=0x12 +0x2=0x00 +0x3=0x00"


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ((0, 1, 0x09, True), "BMICX[SSBM=1 RWCON=1]"),
        ((0, 1, 0x00, True), "BMICX[0]"),
        ((0, 1, 0x81, True), "BMICX[SSBM=1 +0x80]"),
        ((4, 4, 0x1000, True), "BMIDTPX=0x00001000"),
        ((4, 1, 0x12, False), "BMIDTPX+0=0x12"),
        ((6, 2, 0x1234, False), "BMIDTPX+2=0x1234"),
        ((0, 4, 0x00040001, False), "BMICX[SSBM=1] +0x1=0x00 BMISX[IDEINTS=1] +0x3=0x00"),
    ],
)
def test_explain(access: tuple[int, int, int, bool], words: str) -> None:
    assert Bank.MAP.explain(*access) == words


def test_explainer_follows_labels_and_index_ports() -> None:
    explainer = Explainer(Port.MAP)
    assert explainer.explain(0, 1, 1, write=True) == "THR=0x01"
    assert explainer.explain(3, 1, 0x80, write=True) == "LCR[DLAB=1]"
    assert explainer.explain(0, 1, 1, write=True) == "DLL=0x01"

    index, data = Reg("INDEX", 0, 1, access=WO), Reg("DATA", 1, 1)
    inner = RegMap("cmos", 16, (Reg("REGB", 0xB, 1, fields=(Field("SET", 7),)),))
    outer = RegMap("rtc", 2, (index, data), indirect=(Indirect(index, data, inner, 0x7F),))
    explainer = Explainer(outer)
    explainer.explain(0, 1, 0x8B, write=True)
    assert explainer.explain(1, 1, 0x80, write=True) == "DATA=0x80 -> REGB[SET=1]"


def test_part_moves_registers_to_zero() -> None:
    part = Bank.MAP.part(4, 4)
    assert [(r.name, r.offset) for r in part.regs] == [("BMIDTPX", 0)]


# -- errors --------------------------------------------------------------------------------------


def test_overlap_names_both() -> None:
    with pytest.raises(RegMapError) as error:
        RegMap("m", 8, (Reg("A", 0, 4), Reg("B", 2, 2)))
    assert str(error.value) == "register map m: A at 0x0..0x3 overlaps B at 0x2..0x3"


def test_direction_makes_no_overlap() -> None:
    RegMap("m", 1, (Reg("IIR", 0, 1, access=RO), Reg("FCR", 0, 1, access=WO)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reg("A", 0, 3), "register A: expected size 1, 2, 4 or 8, not 3"),
        (lambda: Reg("A", -1, 1), "register A: expected offset >= 0, not -1"),
        (
            lambda: Reg("A", 0, 1, 0x100),
            "register A: expected a reset value of 8 bits, not 0x100",
        ),
        (
            lambda: Reg("A", 0, 1, fields=(Field("X", 7, 2),)),
            "register A: field X (bits 7..8) is outside 8 bits",
        ),
        (
            lambda: Reg("A", 0, 1, fields=(Field("X", 0, 2), Field("Y", 1))),
            "register A: fields X and Y overlap",
        ),
        (
            lambda: RegMap("m", 4, (Reg("A", 2, 4),)),
            "register map m: A at 0x2..0x5 is outside 0x4 bytes",
        ),
        (
            lambda: RegMap("m", 4, (), select=Select(LCR, "DLAB", {})),
            "register map m: select names LCR, which it does not have",
        ),
    ],
)
def test_messages(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(RegMapError) as error:
        make()
    assert str(error.value) == message


@dataclass(slots=True)
class EmptyState:
    pass


def test_register_without_storage_or_handlers() -> None:
    with pytest.raises(RegMapError) as error:
        type("Lost", (RegBank,), {"MAP": RegMap("m", 1, (Reg("A", 0, 1),)), "STATE": EmptyState})
    assert str(error.value) == (
        "Lost: A has neither the state attribute 'a' nor handlers for both directions"
    )


def test_handler_of_a_foreign_register() -> None:
    with pytest.raises(RegMapError) as error:

        class Foreign(RegBank[BankState]):
            MAP = RegMap("m", 1, ())
            STATE = BankState

            @on_write(BMICX)
            def _f(self, old: int, new: int) -> None: ...

    assert str(error.value) == "Foreign: _f handles BMICX, which register map m does not have"


def test_two_handlers_of_one_register() -> None:
    with pytest.raises(RegMapError) as error:

        class Twice(RegBank[BankState]):
            MAP = RegMap("m", 1, (BMICX,))
            STATE = BankState

            @on_write(BMICX)
            def _f(self, old: int, new: int) -> None: ...

            @on_write(BMICX)
            def _g(self, old: int, new: int) -> None: ...

    assert str(error.value) == "Twice: _f and _g both handle write of BMICX"


def test_subclass_replaces_a_handler() -> None:
    class Quiet(Bank):
        @on_write(BMICX)
        def _start_stop(self, old: int, new: int) -> None:
            self.log.append(("quiet",))

    bank = Quiet()
    bank.write(0, 1, 1)
    assert bank.log == [("quiet",)]
