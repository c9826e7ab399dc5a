"""Register maps as data, and banks that execute them.

A `RegMap` says what a programming guide says: names, offsets, sizes, reset values, access kinds,
bit fields. It needs no device, so the trace decoder, the documentation and the inspectors use the
same tables as the emulation.

A `RegBank` is a chip with such a map. A register without side effects needs no code: it is stored
in the attribute of `bank.state` that has its name in lower case (`BMICX` in `state.bmicx`;
registers made by `array("ISR", ...)` in the list `state.isr`). Side effects are methods:

    @on_read(REG)     def f(self) -> int                  the value read; replaces the stored value
    @on_write(REG)    def f(self, old, new) -> None       called after the store, masks applied
    @on_command(REG)  def f(self, value) -> None          the raw value; nothing is stored

Handlers of an indexed register (`Reg.index`) take the index as first argument. Accesses that hit a
register exactly go through a flat table; all others (partial, crossing, gaps) are cut up here, in
ascending order. Bits that no field names are not writable once a register names fields.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar

from workbench.core.state import decode, encode

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
    "Indirect",
    "Reg",
    "RegBank",
    "RegMap",
    "RegMapError",
    "Select",
    "array",
    "on_command",
    "on_read",
    "on_write",
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
_READ_SIDE = frozenset({RO, RC, RW, W1C, RESERVED})
_WRITE_SIDE = frozenset({WO, RW, W1C, RESERVED})


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


@dataclass(frozen=True, slots=True, eq=False)
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
    ) -> None:
        self.name = name
        self.length = length
        self.regs = tuple(regs)
        self.ref = ref
        self.fill = fill
        self.select = select
        self.indirect = indirect
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
        both_read = a.access in _READ_SIDE and b.access in _READ_SIDE
        both_write = a.access in _WRITE_SIDE and b.access in _WRITE_SIDE
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
        side, other = (_WRITE_SIDE, _READ_SIDE) if write else (_READ_SIDE, _WRITE_SIDE)
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
        return text


_F = TypeVar("_F", bound=Callable[..., object])
S = TypeVar("S")


def _mark(kind: str, regs: tuple[Reg, ...]) -> Callable[[_F], _F]:
    def decorate(func: _F) -> _F:
        marks: list[tuple[str, Reg]] = func.__dict__.setdefault("_reg_marks", [])
        marks.extend((kind, reg) for reg in regs)
        return func

    return decorate


def on_read(*regs: Reg) -> Callable[[_F], _F]:
    """The method gives the value read: `f(self) -> int`, for an indexed register `f(self, index)
    -> int`.
    """
    return _mark("read", regs)


def on_write(*regs: Reg) -> Callable[[_F], _F]:
    """The method runs after the store: `f(self, old, new)`, for an indexed register `f(self,
    index, old, new)`.
    """
    return _mark("write", regs)


def on_command(*regs: Reg) -> Callable[[_F], _F]:
    """The method gets the raw value, nothing is stored: `f(self, value)`, indexed `f(self, index,
    value)`.
    """
    return _mark("command", regs)


_Reader = Callable[[], int]
_Writer = Callable[[int], None]


def _ignore(value: int) -> None:
    """A write without effect."""


class RegBank(Generic[S]):
    """A chip made of a register map, a state dataclass and handlers.

    Subclasses set `MAP` and `STATE` (a dataclass whose default is the reset state) and call
    `super().__init__()`. A bank whose map is known only at run time passes `regmap=`. `read` and
    `write` never raise for any offset inside the map.
    """

    MAP: ClassVar[RegMap]
    STATE: ClassVar[type[Any]]
    VERSION: ClassVar[int] = 1
    _handlers: ClassVar[dict[tuple[str, int], str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        handlers: dict[tuple[str, int], str] = {}
        marked: list[tuple[str, Reg, str]] = []
        for klass in reversed(cls.__mro__):
            own: dict[tuple[str, int], str] = {}
            for name, func in vars(klass).items():
                for kind, reg in getattr(func, "_reg_marks", ()):
                    if (kind, id(reg)) in own:
                        raise RegMapError(
                            f"{cls.__name__}: {own[kind, id(reg)]} and {name} "
                            f"both handle {kind} of {reg.name}"
                        )
                    own[kind, id(reg)] = name
                    marked.append((kind, reg, name))
            handlers.update(own)
        cls._handlers = handlers
        if "MAP" in vars(cls):
            mine = set(map(id, cls.MAP.regs))
            for _, reg, name in marked:
                if id(reg) not in mine:
                    raise RegMapError(
                        f"{cls.__name__}: {name} handles {reg.name}, "
                        f"which register map {cls.MAP.name} does not have"
                    )
        if hasattr(cls, "MAP") and hasattr(cls, "STATE"):
            cls._check_storage(cls.MAP)

    def __init__(
        self, name: str = "", *, regmap: RegMap | None = None, state: S | None = None
    ) -> None:
        self.map = regmap if regmap is not None else self.MAP
        self.name = name or self.map.name
        if regmap is not None:
            self._check_storage(regmap)
        self.state: S = state if state is not None else self.STATE()
        self._reader_of = {id(reg): self._make_reader(reg) for reg in self.map.regs}
        self._writer_of = {id(reg): self._make_writer(reg) for reg in self.map.regs}
        self._tables = {label: self._bind(label) for label in self._labels()}
        self._label: str | None = None
        self._readers, self._writers = self._tables[None]
        self.set_state(self.state)

    # -- the fast path ---------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Read `size` bytes at `offset` of the map, little endian, with the side effects of each
        register touched.
        """
        reader = self._readers.get(offset << 4 | size)
        if reader is not None:
            return reader()
        return self._read_parts(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes at `offset`; a partly covered register keeps its other bytes."""
        writer = self._writers.get(offset << 4 | size)
        if writer is not None:
            writer(value)
        else:
            self._write_parts(offset, size, value)

    # -- label, values ---------------------------------------------------------------------------

    def when(self) -> str | None:
        """The label that selects among registers at one offset; from `MAP.select` unless
        overridden.
        """
        select = self.map.select
        if select is None:
            return None
        return select.label(self.peek(select.reg))

    def reselect(self) -> None:
        """Recompute the label; called by the bank after writes to `MAP.select.reg` and after
        `set_state`.
        """
        label = self.when()
        self._label = label
        self._readers, self._writers = self._tables.get(label) or self._tables[None]

    def peek(self, reg: Reg) -> int:
        """The stored value of a register, without side effects; its reset value if it is not
        stored.
        """
        if not hasattr(self.state, reg.attr):
            return reg.reset
        value = getattr(self.state, reg.attr)
        result: int = value if reg.index is None else value[reg.index]
        return result

    def explain(self, offset: int, size: int, value: int, write: bool) -> str:
        """An access in words, with the present label."""
        return self.map.explain(offset, size, value, write, self._label)

    # -- state -----------------------------------------------------------------------------------

    def set_state(self, state: S) -> None:
        """Replace the state object; makes no edges and arms no timers."""
        self.state = state
        self.reselect()

    def reset(self) -> None:
        """The reset state; chips that keep something over a reset or drive lines override it."""
        self.set_state(self.STATE())

    def save(self) -> dict[str, Any]:
        """The state as plain data (see `core.state`)."""
        return encode(self.state, self.map.name, self.VERSION)

    def restore(self, data: dict[str, Any]) -> None:
        """Take a state that `save` made; raises StateError. Subclasses add `IrqLine.restore` of
        their outputs.
        """
        self.set_state(decode(self.STATE, data, self.map.name, self.VERSION))

    # -- construction ----------------------------------------------------------------------------

    @classmethod
    def _check_storage(cls, regmap: RegMap) -> None:
        assert is_dataclass(cls.STATE)
        stored = {f.name for f in fields(cls.STATE)}
        for reg in regmap.regs:
            has_read = ("read", id(reg)) in cls._handlers
            has_write = ("write", id(reg)) in cls._handlers
            has_command = ("command", id(reg)) in cls._handlers
            if has_write and has_command:
                raise RegMapError(
                    f"{cls.__name__}: {reg.name} has both an on_write and an on_command handler"
                )
            if reg.attr in stored:
                continue
            if has_write:
                raise RegMapError(
                    f"{cls.__name__}: on_write of {reg.name} needs the state attribute "
                    f"{reg.attr!r}; a register that is not stored takes on_command"
                )
            if reg.access in (Access.RO, Access.RESERVED) or (
                reg.access is Access.WO and has_command
            ):
                continue
            lacks_read = reg.access in _READ_SIDE and not has_read
            if lacks_read or (reg.access in _WRITE_SIDE and not has_command):
                raise RegMapError(
                    f"{cls.__name__}: {reg.name} has neither the state attribute "
                    f"{reg.attr!r} "
                    f"nor handlers for both directions"
                )

    def _labels(self) -> tuple[str | None, ...]:
        return self.map.labels()

    def _bind(self, label: str | None) -> tuple[dict[int, _Reader], dict[int, _Writer]]:
        regmap = self.map
        readers = {
            key: self._reader_of[id(regs[0])] for key, regs in regmap.exact(False, label).items()
        }
        writers: dict[int, _Writer] = {}
        for key, regs in regmap.exact(True, label).items():
            writers[key] = (
                self._writer_of[id(regs[0])] if regs[0].match is None else self._dispatch(regs)
            )
        return readers, writers

    def _dispatch(self, regs: tuple[Reg, ...]) -> _Writer:
        table = [(*(reg.match or (0, 0)), self._writer_of[id(reg)]) for reg in regs]

        def write(value: int) -> None:
            for mask, wanted, writer in table:
                if value & mask == wanted:
                    writer(value)
                    return

        return write

    def _handler(self, kind: str, reg: Reg) -> Callable[..., Any] | None:
        name = self._handlers.get((kind, id(reg)))
        if name is None:
            return None
        method: Callable[..., Any] = getattr(self, name)
        return method if reg.index is None else partial(method, reg.index)

    def _make_reader(self, reg: Reg) -> _Reader:
        handler = self._handler("read", reg)
        if handler is not None:
            return handler
        fill = int.from_bytes(bytes([self.map.fill]) * reg.size, "little")
        if reg.access is Access.WO:
            return lambda: fill
        if not hasattr(self.state, reg.attr):
            return lambda: reg.reset
        attr, index = reg.attr, reg.index
        write_only, read_clear = reg.bits(Access.WO), reg.bits(Access.RC)
        if not write_only and not read_clear:
            if index is None:
                return partial(attrgetter(f"state.{attr}"), self)
            return lambda: getattr(self.state, attr)[index]

        def read() -> int:
            value = self.peek(reg)
            if value & read_clear:
                self._poke(reg, value & ~read_clear)
            return value & ~write_only

        return read

    def _make_writer(self, reg: Reg) -> _Writer:
        writer = self._plain_writer(reg)
        select = self.map.select
        if select is None or select.reg is not reg:
            return writer

        def write(value: int) -> None:
            writer(value)
            self.reselect()

        return write

    def _plain_writer(self, reg: Reg) -> _Writer:
        command = self._handler("command", reg)
        full = reg.mask
        if command is not None:
            return command
        writable, clear = reg.bits(Access.RW, Access.WO), reg.bits(Access.W1C)
        handler = self._handler("write", reg)
        if (not writable and not clear and handler is None) or not hasattr(self.state, reg.attr):
            return _ignore
        attr, index = reg.attr, reg.index
        if index is not None:

            def write_item(value: int) -> None:
                items = getattr(self.state, attr)
                old = items[index]
                new = ((old & ~writable) | (value & writable)) & ~(value & clear)
                items[index] = new
                if handler is not None:
                    handler(old, new)

            return write_item
        if handler is None:
            if writable == full:

                def write_all(value: int) -> None:
                    setattr(self.state, attr, value & full)

                return write_all

            def write_some(value: int) -> None:
                state = self.state
                old = getattr(state, attr)
                setattr(state, attr, ((old & ~writable) | (value & writable)) & ~(value & clear))

            return write_some

        def write(value: int) -> None:
            state = self.state
            old = getattr(state, attr)
            new = ((old & ~writable) | (value & writable)) & ~(value & clear)
            setattr(state, attr, new)
            handler(old, new)

        return write

    def _poke(self, reg: Reg, value: int) -> None:
        if reg.index is None:
            setattr(self.state, reg.attr, value)
        else:
            getattr(self.state, reg.attr)[reg.index] = value

    # -- the slow path ---------------------------------------------------------------------------

    def _read_parts(self, offset: int, size: int) -> int:
        result = 0
        pos, end = offset, offset + size
        while pos < end:
            regs = self.map.cover(False, self._table_label()).get(pos)
            shift = 8 * (pos - offset)
            if not regs:
                result |= self.map.fill << shift
                pos += 1
                continue
            reg = regs[0]
            count = min(reg.end, end) - pos
            value = self._reader_of[id(reg)]() >> 8 * (pos - reg.offset)
            result |= (value & ((1 << 8 * count) - 1)) << shift
            pos += count
        return result

    def _write_parts(self, offset: int, size: int, value: int) -> None:
        pos, end = offset, offset + size
        while pos < end:
            rest = value >> 8 * (pos - offset)
            reg = choose(self.map.cover(True, self._table_label()).get(pos, ()), rest, True)
            if reg is None:
                pos += 1
                continue
            count = min(reg.end, end) - pos
            piece = rest & ((1 << 8 * count) - 1)
            if count != reg.size:
                shift = 8 * (pos - reg.offset)
                hole = ((1 << 8 * count) - 1) << shift
                piece = (self.peek(reg) & ~hole & ~reg.bits(Access.W1C)) | piece << shift
            self._writer_of[id(reg)](piece)
            pos += count

    def _table_label(self) -> str | None:
        return self._label if self._label in self._tables else None
