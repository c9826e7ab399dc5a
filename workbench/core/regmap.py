"""Register maps as data: what a programming guide says, checked, without a device.

Names, offsets, sizes, reset values, access kinds and bit fields. The emulation (`core.regs`), the
trace decoder, the documentation and the inspectors all use the same tables.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

__all__ = [
    "RC",
    "RESERVED",
    "RO",
    "RW",
    "W1C",
    "WO",
    "Access",
    "Explainer",
    "Field",
    "Follow",
    "Indirect",
    "Reg",
    "RegMap",
    "RegMapError",
    "Select",
    "array",
    "choose",
]


class RegMapError(ValueError):
    """A register map or its handlers contradict themselves; found when the class is made."""


class Access(enum.Enum):
    """What software can do with a register or field."""

    RW = "RW"
    """Read and write."""
    RO = "RO"
    """Writes are ignored."""
    WO = "WO"
    """Reads give the fill value (register) or 0 (field)."""
    W1C = "W1C"
    """Writing 1 clears the bit, writing 0 keeps it."""
    RC = "RC"
    """Reading clears, writes are ignored."""
    RESERVED = "RESERVED"
    """Reads give the reset value, writes are ignored."""


RW, RO, WO, W1C, RC, RESERVED = Access
READ_SIDE = frozenset({RO, RC, RW, W1C, RESERVED})
WRITE_SIDE = frozenset({WO, RW, W1C, RESERVED})


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Bits `lsb .. lsb+width-1` of a register. `access` None inherits the register's."""

    name: str
    lsb: int
    width: int = 1
    access: Access | None = None
    values: Mapping[int, str] = field(default_factory=dict)

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.lsb

    def get(self, value: int) -> int:
        """The field's value in a register value."""
        return (value >> self.lsb) & ((1 << self.width) - 1)

    def put(self, value: int, bits: int) -> int:
        """`value` with the field replaced by `bits`."""
        return (value & ~self.mask) | ((bits << self.lsb) & self.mask)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reg:
    """One register of `size` bytes at `offset`.

    `when`: a label; the register exists only while the bank's (or the decoder's) label equals it,
    and then comes before one at the same place without a label.
    `match`: (mask, value); of several registers written at one offset the first whose match fits
    the value is meant. `index`: place in an array of registers; handlers get it, the stored
    attribute is a list. `exact`: reached only by an access of just this offset and size; may
    overlap others (ATA data, 0xCF8). `attr`: name of the attribute in the state, the register's
    name in lower case unless given.
    """

    name: str
    offset: int
    size: int
    reset: int = 0
    access: Access = Access.RW
    fields: tuple[Field, ...] = ()
    ref: str = ""
    when: str | None = None
    index: int | None = None
    match: tuple[int, int] | None = None
    exact: bool = False
    attr: str = ""

    def __post_init__(self) -> None:
        if self.size not in (1, 2, 4, 8):
            raise RegMapError(
                f"register {self.name}: expected size 1, 2, 4 or 8, not {self.size!r}"
            )
        if self.offset < 0:
            raise RegMapError(f"register {self.name}: expected offset >= 0, not {self.offset!r}")
        if not 0 <= self.reset <= self.mask:
            raise RegMapError(
                f"register {self.name}: expected a reset value of {self.size * 8} bits, "
                f"not {self.reset:#x}"
            )
        if not self.attr:
            object.__setattr__(self, "attr", self.name.lower())
        used = 0
        for fld in self.fields:
            if fld.width < 1 or fld.lsb < 0 or fld.lsb + fld.width > self.size * 8:
                raise RegMapError(
                    f"register {self.name}: field {fld.name} "
                    f"(bits {fld.lsb}..{fld.lsb + fld.width - 1}) "
                    f"is outside {self.size * 8} bits"
                )
            if used & fld.mask:
                other = next(f for f in self.fields if f.mask & fld.mask)
                raise RegMapError(
                    f"register {self.name}: fields {other.name} and {fld.name} overlap"
                )
            used |= fld.mask

    def __repr__(self) -> str:
        return f"Reg({self.name} at {self.offset:#x}, {self.size} bytes, {self.access.name})"

    def __getitem__(self, name: str) -> Field:
        """The field called `name`."""
        for fld in self.fields:
            if fld.name == name:
                return fld
        raise KeyError(f"register {self.name} has no field {name!r}")

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def mask(self) -> int:
        return (1 << self.size * 8) - 1

    def bits(self, *kinds: Access) -> int:
        """Mask of the bits whose access is one of `kinds`."""
        if not self.fields:
            return self.mask if self.access in kinds else 0
        result = 0
        for fld in self.fields:
            if (fld.access or self.access) in kinds:
                result |= fld.mask
        return result

    def explain(self, value: int) -> str:
        """`NAME[FIELD=1 MODE=edge]`: the fields that are not 0 or whose value has a name."""
        if not self.fields:
            return f"{self.name}={value:#0{self.size * 2 + 2}x}"
        parts = []
        named = 0
        for fld in self.fields:
            named |= fld.mask
            bits = fld.get(value)
            label = fld.values.get(bits)
            if label is not None:
                parts.append(f"{fld.name}={label}")
            elif bits:
                parts.append(f"{fld.name}={bits}" if bits < 10 else f"{fld.name}={bits:#x}")
        if value & ~named:
            parts.append(f"+{value & ~named:#x}")
        return f"{self.name}[{' '.join(parts)}]" if parts else f"{self.name}[0]"


def array(
    name: str,
    offset: int,
    size: int,
    count: int,
    stride: int,
    *,
    reset: int = 0,
    access: Access = Access.RW,
    fields: tuple[Field, ...] = (),
    ref: str = "",
) -> tuple[Reg, ...]:
    """Registers `name0 .. name<count-1>`, `stride` bytes apart, stored in the list `state.<name in
    lower case>`.
    """
    return tuple(
        Reg(
            f"{name}{i}",
            offset + i * stride,
            size,
            reset,
            access,
            fields,
            ref,
            index=i,
            attr=name.lower(),
        )
        for i in range(count)
    )


@dataclass(frozen=True, slots=True)
class Select:
    """The `when` label follows from a field of a register of the same map (UART: LCR.DLAB)."""

    reg: Reg
    field: str
    labels: Mapping[int, str]

    def label(self, value: int) -> str | None:
        """Label for a value of the register."""
        return self.labels.get(self.reg[self.field].get(value))


@dataclass(frozen=True, slots=True)
class Indirect:
    """An index/data pair: `data` shows the register of `map` at `(index & mask) * scale`."""

    index: Reg
    data: Reg
    map: RegMap
    mask: int = 0xFF
    scale: int = 1


Follow = Callable[[tuple[str, ...], Reg, int], tuple[str, ...]]
"""(labels to come, register written, value) -> labels to come: for chips that take a sequence of
words at one offset. The first label holds for the next access."""


class RegMap:
    """A named, checked set of registers in `length` bytes of address space.

    `fill` is the byte read where there is no register. Overlaps are errors, except between
    registers that differ in direction (RO and WO), in `when`, by `match`, or that are `exact`.
    """

    def __init__(
        self,
        name: str,
        length: int,
        regs: Iterable[Reg],
        ref: str = "",
        *,
        fill: int = 0,
        select: Select | None = None,
        indirect: tuple[Indirect, ...] = (),
        follow: Follow | None = None,
    ) -> None:
        self.name = name
        self.length = length
        self.regs = tuple(regs)
        self.ref = ref
        self.fill = fill
        self.select = select
        self.indirect = indirect
        self.follow = follow
        self._covers: dict[tuple[bool, str | None], dict[int, tuple[Reg, ...]]] = {}
        self._exact: dict[tuple[bool, str | None], dict[int, tuple[Reg, ...]]] = {}
        self._check()

    def __repr__(self) -> str:
        return f"RegMap({self.name!r}, {self.length:#x}, {len(self.regs)} registers)"

    def __getitem__(self, name: str) -> Reg:
        """The first register called `name`."""
        for reg in self.regs:
            if reg.name == name:
                return reg
        raise KeyError(f"register map {self.name} has no register {name!r}")

    def part(self, start: int, length: int) -> RegMap:
        """The registers inside `length` bytes from `start`, moved to offset 0; selects are left
        out.
        """
        moved = [
            replace(reg, offset=reg.offset - start)
            for reg in self.regs
            if start <= reg.offset and reg.end <= start + length
        ]
        return RegMap(f"{self.name}+{start:#x}", length, moved, self.ref, fill=self.fill)

    def _check(self) -> None:
        for reg in self.regs:
            if reg.end > self.length:
                raise RegMapError(
                    f"register map {self.name}: {reg.name} at {reg.offset:#x}..{reg.end - 1:#x} "
                    f"is outside {self.length:#x} bytes"
                )
        ordered = sorted(self.regs, key=lambda r: r.offset)
        for i, a in enumerate(ordered):
            for b in ordered[i + 1 :]:
                if b.offset >= a.end:
                    # Sorted by offset, but an earlier, longer register was compared with b already.
                    break
                if self._clash(a, b):
                    raise RegMapError(
                        f"register map {self.name}: {a.name} at {a.offset:#x}..{a.end - 1:#x} "
                        f"overlaps {b.name} at {b.offset:#x}..{b.end - 1:#x}"
                    )
        mine = set(map(id, self.regs))
        if self.select is not None and id(self.select.reg) not in mine:
            raise RegMapError(
                f"register map {self.name}: select names {self.select.reg.name}, "
                f"which it does not have"
            )
        for ind in self.indirect:
            for reg in (ind.index, ind.data):
                if id(reg) not in mine:
                    raise RegMapError(
                        f"register map {self.name}: indirect names {reg.name}, "
                        f"which it does not have"
                    )

    @staticmethod
    def _clash(a: Reg, b: Reg) -> bool:
        same_place = (a.offset, a.size) == (b.offset, b.size)
        if (a.exact or b.exact) and not same_place:
            return False
        if a.when != b.when and (same_place or (a.when is not None and b.when is not None)):
            return False
        if a.match is not None and b.match is not None and same_place and a.match != b.match:
            return False
        both_read = a.access in READ_SIDE and b.access in READ_SIDE
        both_write = a.access in WRITE_SIDE and b.access in WRITE_SIDE
        return both_read or both_write

    def labels(self) -> tuple[str | None, ...]:
        """All labels that a `when` of this map mentions, and None."""
        return (None, *dict.fromkeys(r.when for r in self.regs if r.when is not None))

    def exact(self, write: bool, when: str | None) -> Mapping[int, tuple[Reg, ...]]:
        """`offset << 4 | size` -> registers hit exactly (several only if selected by `match`)."""
        self._tables(write, when)
        return self._exact[write, when]

    def cover(self, write: bool, when: str | None) -> Mapping[int, tuple[Reg, ...]]:
        """Byte offset -> registers there, `exact` ones left out."""
        self._tables(write, when)
        return self._covers[write, when]

    def _tables(self, write: bool, when: str | None) -> None:
        if (write, when) in self._exact:
            return
        side, other = (WRITE_SIDE, READ_SIDE) if write else (READ_SIDE, WRITE_SIDE)
        exact: dict[int, tuple[Reg, ...]] = {}
        cover: dict[int, tuple[Reg, ...]] = {}
        # A register of the other direction answers where no other does, and one without a label
        # where none has this label.
        for wanted in (side, other - side):
            for labelled in (True, False):
                taken_exact, taken_cover = set(exact), set(cover)
                for reg in self.regs:
                    if reg.access not in wanted or (reg.when is not None) is not labelled:
                        continue
                    if labelled and reg.when != when:
                        continue
                    key = reg.offset << 4 | reg.size
                    if key not in taken_exact:
                        exact[key] = (*exact.get(key, ()), reg)
                    for pos in () if reg.exact else range(reg.offset, reg.end):
                        if pos not in taken_cover:
                            cover[pos] = (*cover.get(pos, ()), reg)
        self._exact[write, when] = exact
        self._covers[write, when] = cover

    def find(
        self, offset: int, size: int, write: bool, when: str | None = None, value: int = 0
    ) -> Reg | None:
        """The register that an access of exactly this offset and size means, or None."""
        return choose(self.exact(write, when).get(offset << 4 | size, ()), value, write)

    def explain(
        self, offset: int, size: int, value: int, write: bool, when: str | None = None
    ) -> str:
        """One access in words: `BMICX[SSBM=1 RWCON=1]`; parts of registers as `NAME+1=0x..`, gaps
        as `+0x3=0x..`.
        """
        reg = self.find(offset, size, write, when, value)
        if reg is not None:
            return reg.explain(value)
        cover = self.cover(write, when)
        parts = []
        pos, end = offset, offset + size
        while pos < end:
            rest = value >> 8 * (pos - offset)
            reg = choose(cover.get(pos, ()), rest, write)
            if reg is None:
                parts.append(f"+{pos:#x}={rest & 0xFF:#04x}")
                pos += 1
                continue
            count = min(reg.end, end) - pos
            piece = rest & ((1 << 8 * count) - 1)
            if count == reg.size:
                parts.append(reg.explain(piece))
            else:
                parts.append(f"{reg.name}+{pos - reg.offset}={piece:#0{count * 2 + 2}x}")
            pos += count
        return " ".join(parts)


def choose(regs: tuple[Reg, ...], value: int, write: bool) -> Reg | None:
    """Of the registers at one place, the one that a value means (`Reg.match` counts for writes
    only).
    """
    for reg in regs:
        if reg.match is None or not write or value & reg.match[0] == reg.match[1]:
            return reg
    return None


class Explainer:
    """Decodes a sequence of accesses without a live device: follows `Select` and `Indirect` from
    what is written.
    """

    def __init__(self, regmap: RegMap) -> None:
        self.map = regmap
        self.when: str | None = None
        self._index: dict[int, int] = {}
        self._labels: tuple[str, ...] = ()
        if regmap.select is not None:
            self.when = regmap.select.label(regmap.select.reg.reset)

    def explain(self, offset: int, size: int, value: int, write: bool) -> str:
        """Like `RegMap.explain`, with the label and the index that the accesses before have set."""
        regmap = self.map
        text = regmap.explain(offset, size, value, write, self.when)
        reg = regmap.find(offset, size, write, self.when, value)
        for ind in regmap.indirect:
            if reg is ind.data and id(ind.index) in self._index:
                inner = (self._index[id(ind.index)] & ind.mask) * ind.scale
                text = f"{text} -> {ind.map.explain(inner, size, value, write)}"
            if write and reg is ind.index:
                self._index[id(reg)] = value
        if write and regmap.select is not None and reg is regmap.select.reg:
            self.when = regmap.select.label(value)
        if write and regmap.follow is not None and reg is not None:
            self._labels = regmap.follow(self._labels, reg, value)
            self.when = self._labels[0] if self._labels else None
        return text
