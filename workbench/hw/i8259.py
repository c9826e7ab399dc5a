"""Interrupt controllers of a PC: two 8259A, cascaded at IR2 (Intel 8259A data sheet, 231468-003).

Modelled: ICW1-4, OCW1-3, edge and level inputs (LTIM and the ELCR of the 82371SB, 2.5.3), fully
nested, special fully nested and special mask mode, automatic EOI, rotation, poll, spurious IR7. A
request of an edge input goes away when the input falls before it is acknowledged, as in the chip.
Not modelled: MCS-80 mode (ICW4.uPM = 0 behaves like 8086 mode) and buffered mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core.bus import Window
from workbench.core.irq import IrqLine
from workbench.core.regs import (
    RO,
    WO,
    Field,
    Reg,
    RegBank,
    RegMap,
    on_command,
    on_read,
)
from workbench.core.state import decode, encode

__all__ = ["I8259", "I8259Pair", "PairState", "PicState"]

REF = "8259A, initialization and operation command words"
ICW1 = Reg(
    "ICW1",
    0,
    1,
    access=WO,
    match=(0x10, 0x10),
    fields=(
        Field("IC4", 0),
        Field("SNGL", 1, values={0: "cascade", 1: "single"}),
        Field("ADI", 2),
        Field("LTIM", 3, values={0: "edge", 1: "level"}),
        Field("ICW1", 4),
    ),
    ref=REF,
)
OCW2 = Reg(
    "OCW2",
    0,
    1,
    access=WO,
    match=(0x18, 0x00),
    fields=(
        Field("L", 0, 3),
        Field(
            "CMD",
            5,
            3,
            values={
                0: "rotate-aeoi-clear",
                1: "eoi",
                2: "nop",
                3: "specific-eoi",
                4: "rotate-aeoi-set",
                5: "rotate-eoi",
                6: "set-priority",
                7: "rotate-specific-eoi",
            },
        ),
    ),
    ref=REF,
)
OCW3 = Reg(
    "OCW3",
    0,
    1,
    access=WO,
    match=(0x18, 0x08),
    fields=(
        Field("RIS", 0, values={0: "irr", 1: "isr"}),
        Field("RR", 1),
        Field("P", 2),
        Field("OCW3", 3),
        Field("SMM", 5),
        Field("ESMM", 6),
    ),
    ref=REF,
)
IRR_ISR = Reg("IRR", 0, 1, access=RO, ref="8259A, reading the status")
OCW1 = Reg("OCW1", 1, 1, attr="imr", ref=REF)
ICW2 = Reg("ICW2", 1, 1, access=WO, when="ICW2", fields=(Field("T7-3", 3, 5),), ref=REF)
ICW3 = Reg("ICW3", 1, 1, access=WO, when="ICW3", ref=REF)
ICW4 = Reg(
    "ICW4",
    1,
    1,
    access=WO,
    when="ICW4",
    fields=(
        Field("uPM", 0, values={0: "mcs80", 1: "8086"}),
        Field("AEOI", 1),
        Field("BUF", 2, 2),
        Field("SFNM", 4),
    ),
    ref=REF,
)
ELCR1 = Reg("ELCR1", 0, 1, ref="82371SB 2.5.3")
ELCR2 = Reg("ELCR2", 1, 1, ref="82371SB 2.5.3")
ELCR_MAP = RegMap("elcr", 2, (ELCR1, ELCR2), "82371SB 2.5.3")
ELCR_MASK = (0xF8, 0xDE)
"""IRQ 0, 1, 2, 8 and 13 are always edge triggered."""

CASCADE = 2


@dataclass(slots=True)
class PicState:
    """One 8259A."""

    irr: int = 0
    isr: int = 0
    imr: int = 0
    lines: int = 0
    """Levels of IR0-IR7, for edge detection."""
    elcr: int = 0
    expect: str = ""
    """The initialization word that offset 1 takes next, empty when the sequence is over."""
    vector_base: int = 0
    ltim: bool = False
    single: bool = False
    needs_icw4: bool = False
    icw3: int = 0
    auto_eoi: bool = False
    fully_nested: bool = False
    """ICW4.SFNM."""
    lowest: int = 7
    """The input with the lowest priority."""
    rotate_on_aeoi: bool = False
    special_mask: bool = False
    read_isr: bool = False
    poll: bool = False

    def __post_init__(self) -> None:
        if self.expect not in ("", "ICW2", "ICW3", "ICW4"):
            raise ValueError(f"expected an initialization word, not {self.expect!r:.80}")
        for bits in (self.irr, self.isr, self.imr, self.lines, self.elcr, self.icw3):
            if not 0 <= bits <= 0xFF:
                raise ValueError(f"expected 8 bits for 8 inputs, not {bits!r}")
        if not 0 <= self.lowest <= 7 or self.vector_base & ~0xF8:
            raise ValueError(
                f"expected lowest 0..7 and a vector base in bits 3-7, "
                f"not {self.lowest!r} and {self.vector_base!r}"
            )


@dataclass(slots=True)
class PairState:
    """Both chips."""

    master: PicState = field(default_factory=PicState)
    slave: PicState = field(default_factory=PicState)


def _follow(labels: tuple[str, ...], reg: Reg, value: int) -> tuple[str, ...]:
    """The initialization sequence (8259A, figure 6), for decoding without the chip."""
    if reg is ICW1:
        return ("ICW2", *(() if value & 2 else ("ICW3",)), *(("ICW4",) if value & 1 else ()))
    return labels[1:] if labels and reg.when == labels[0] else labels


class I8259(RegBank[PicState]):
    """One 8259A. `changed` is called after everything that can change its INT output."""

    MAP = RegMap(
        "i8259",
        2,
        (ICW1, OCW2, OCW3, IRR_ISR, ICW2, ICW3, ICW4, OCW1),
        REF,
        fill=0xFF,
        follow=_follow,
    )
    STATE = PicState

    def __init__(self, name: str, changed: Callable[[], None], *, is_master: bool) -> None:
        super().__init__(name)
        self._changed = changed
        self._is_master = is_master

    def when(self) -> str | None:
        return self.state.expect or None

    # -- requests --------------------------------------------------------------------------------

    def set_input(self, ir: int, level: bool) -> None:
        """The level of input IR0-IR7."""
        s = self.state
        bit = 1 << ir
        if not level:
            s.lines &= ~bit
            s.irr &= ~bit
        elif not s.lines & bit:
            s.lines |= bit
            s.irr |= bit
        else:
            return
        self._changed()

    def request(self) -> int:
        """The input that asks for service and may have it, or -1."""
        s = self.state
        irr = s.irr & ~s.imr
        if not irr:
            return -1
        isr = s.isr
        if s.special_mask:
            isr &= ~s.imr
        if s.fully_nested and self._is_master:
            isr &= ~s.icw3
        turn = (s.lowest + 1) & 7
        wanted = self._first(irr, turn)
        if isr and self._first(isr, turn) <= wanted:
            return -1
        return (wanted + turn) & 7

    @staticmethod
    def _first(bits: int, turn: int) -> int:
        """Distance of the first set bit from the one with the highest priority."""
        turned = (bits | bits << 8) >> turn & 0xFF
        return (turned & -turned).bit_length() - 1

    def take(self) -> int:
        """The interrupt acknowledge: the input served, 7 without ISR bit if there is no request
        (any more).
        """
        ir = self.request()
        if ir < 0:
            return 7
        s = self.state
        bit = 1 << ir
        if not self._levels() & bit:
            s.irr &= ~bit
        if not s.auto_eoi:
            s.isr |= bit
        elif s.rotate_on_aeoi:
            s.lowest = ir
        self._changed()
        return ir

    def _levels(self) -> int:
        s = self.state
        return 0xFF if s.ltim else s.elcr

    def set_elcr(self, value: int) -> None:
        """Inputs that are level triggered."""
        s = self.state
        s.irr |= value & ~s.elcr & s.lines
        s.elcr = value
        self._changed()

    # -- registers -------------------------------------------------------------------------------

    @on_command(ICW1)
    def _initialize(self, value: int) -> None:
        s = self.state
        s.imr = s.isr = 0
        s.lowest = 7
        s.special_mask = s.read_isr = s.poll = s.rotate_on_aeoi = False
        s.auto_eoi = s.fully_nested = False
        s.needs_icw4 = bool(value & 1)
        s.single = bool(value & 2)
        s.ltim = bool(value & 8)
        s.irr = s.lines & self._levels()
        s.expect = "ICW2"
        self.reselect()
        self._changed()

    @on_command(ICW2)
    def _set_vector(self, value: int) -> None:
        s = self.state
        s.vector_base = value & 0xF8
        self._expect("ICW4" if s.single else "ICW3")

    @on_command(ICW3)
    def _set_cascade(self, value: int) -> None:
        self.state.icw3 = value
        self._expect("ICW4")

    @on_command(ICW4)
    def _set_mode(self, value: int) -> None:
        s = self.state
        s.auto_eoi = bool(value & 2)
        s.fully_nested = bool(value & 0x10)
        self._expect("")

    def _expect(self, word: str) -> None:
        s = self.state
        s.expect = "" if word == "ICW4" and not s.needs_icw4 else word
        self.reselect()
        self._changed()

    @on_command(OCW1)
    def _mask(self, value: int) -> None:
        self.state.imr = value
        self._changed()

    @on_command(OCW2)
    def _operate(self, value: int) -> None:
        s = self.state
        command, level = value >> 5, value & 7
        if command in (0, 4):
            s.rotate_on_aeoi = command == 4
        elif command in (1, 5):
            isr = s.isr & ~s.imr if s.special_mask else s.isr
            if isr:
                turn = (s.lowest + 1) & 7
                level = (self._first(isr, turn) + turn) & 7
                s.isr &= ~(1 << level)
                if command == 5:
                    s.lowest = level
        elif command in (3, 7):
            s.isr &= ~(1 << level)
            if command == 7:
                s.lowest = level
        elif command == 6:
            s.lowest = level
        self._changed()

    @on_command(OCW3)
    def _select(self, value: int) -> None:
        s = self.state
        if value & 0x40:
            s.special_mask = bool(value & 0x20)
        s.poll = bool(value & 4)
        if value & 2:
            s.read_isr = bool(value & 1)
        self._changed()

    @on_read(IRR_ISR)
    def _status(self) -> int:
        s = self.state
        if s.poll:
            return self._poll()
        return s.isr if s.read_isr else s.irr

    @on_read(OCW1)
    def _read_mask(self) -> int:
        s = self.state
        return self._poll() if s.poll else s.imr

    def _poll(self) -> int:
        """The poll word: the read is the acknowledge."""
        self.state.poll = False
        ir = self.request()
        if ir < 0:
            return 0
        return 0x80 | self.take()


@dataclass(slots=True)
class _ElcrState:
    elcr1: int = 0
    elcr2: int = 0


class _Elcr(RegBank[_ElcrState]):
    """Edge/level control; what is stored here is in the chips."""

    MAP = ELCR_MAP
    STATE = _ElcrState

    def __init__(self, pair: I8259Pair) -> None:
        super().__init__()
        self._pair = pair

    @on_read(ELCR1)
    def _read_1(self) -> int:
        return self._pair.master.state.elcr

    @on_read(ELCR2)
    def _read_2(self) -> int:
        return self._pair.slave.state.elcr

    @on_command(ELCR1)
    def _write_1(self, value: int) -> None:
        self._pair.master.set_elcr(value & ELCR_MASK[0])

    @on_command(ELCR2)
    def _write_2(self, value: int) -> None:
        self._pair.slave.set_elcr(value & ELCR_MASK[1])


class I8259Pair:
    """Master at 0x20, slave at 0xA0, ELCR at 0x4D0. `intr` is the INT output of the master."""

    name = "pic"

    def __init__(self, intr: IrqLine) -> None:
        self._intr = intr
        self._busy = False
        self.master = I8259("pic0", self._sync, is_master=True)
        self.slave = I8259("pic1", self._sync, is_master=False)
        self.elcr = _Elcr(self)

    def windows(self) -> tuple[Window, ...]:
        """The windows in port space."""
        return (
            Window.of(self.master, self.name, 0x20, name="pic0"),
            Window.of(self.slave, self.name, 0xA0, name="pic1"),
            Window.of(self.elcr, self.name, 0x4D0),
        )

    def set_irq(self, irq: int, level: bool) -> None:
        """The level of IRQ0-IRQ15; IRQ2 is the cascade and has no pin."""
        if irq < 8:
            if irq != CASCADE:
                self.master.set_input(irq, level)
        else:
            self.slave.set_input(irq - 8, level)

    def pending(self) -> bool:
        """Whether INT is up."""
        return self.master.request() >= 0

    def acknowledge(self) -> int:
        """The INTA cycles: the vector. Without a request it is the spurious one, IR7."""
        self._busy = True
        ir = self.master.take()
        vector = self.master.state.vector_base | ir
        if ir == CASCADE and self.master.state.lines & 1 << CASCADE:
            # The slave drops INT during INTA, so that its next request is an edge again.
            self.master.set_input(CASCADE, False)
            vector = self.slave.state.vector_base | self.slave.take()
        self._busy = False
        self._sync()
        return vector

    def _sync(self) -> None:
        """Slave INT to master IR2, master INT to the CPU."""
        if self._busy:
            return
        self._busy = True
        self.master.set_input(CASCADE, self.slave.request() >= 0)
        self._busy = False
        self._intr.set(self.master.request() >= 0)

    def reset(self) -> None:
        """Power-on: nothing requested, no vectors, all inputs edge triggered. Input levels stay."""
        for chip in (self.master, self.slave):
            lines = chip.state.lines
            chip.set_state(PicState(lines=lines))
        self._sync()

    def save(self) -> dict[str, Any]:
        """Both chips."""
        return encode(PairState(self.master.state, self.slave.state), "i8259-pair")

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; INT changes without an edge."""
        state = decode(PairState, data, "i8259-pair")
        self.master.set_state(state.master)
        self.slave.set_state(state.slave)
        self._intr.restore(self.master.request() >= 0)
