"""Banks of registers: a chip made of a register map, a state dataclass and handlers.

A register without side effects needs no code: it is stored in the attribute of `bank.state` that
has its name in lower case (`BMICX` in `state.bmicx`; registers made by `array("ISR", ...)` in the
list `state.isr`). Side effects are methods:

    @on_read(REG)     def f(self) -> int                  the value read; replaces the stored value
    @on_write(REG)    def f(self, old, new) -> None       called after the store, masks applied
    @on_command(REG)  def f(self, value) -> None          the raw value; nothing is stored

Handlers of an indexed register (`Reg.index`) take the index as first argument. Accesses that hit a
register exactly go through a flat table; all others (partial, crossing, gaps) are cut up here, in
ascending order. Bits that no field names are not writable once a register names fields.

The names of `core.regmap` can be imported from here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar

from workbench.core.regmap import (
    RC,
    READ_SIDE,
    RESERVED,
    RO,
    RW,
    W1C,
    WO,
    WRITE_SIDE,
    Access,
    Explainer,
    Field,
    Indirect,
    Reg,
    RegMap,
    RegMapError,
    Select,
    array,
    choose,
)
from workbench.core.state import StateError, decode, encode

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
        state = decode(self.STATE, data, self.map.name, self.VERSION)
        self._check_values(state)
        self.set_state(state)

    def _check_values(self, state: S) -> None:
        """A register out of its width in a snapshot is an error, not something to run with."""
        for reg in self.map.regs:
            value = getattr(state, reg.attr, 0)
            if reg.index is not None and isinstance(value, list):
                if reg.index >= len(value):
                    raise StateError(f"{self.map.name}.{reg.attr}: register {reg.name} is missing")
                value = value[reg.index]
            if type(value) is int and not 0 <= value <= reg.mask:
                raise StateError(
                    f"{self.map.name}.{reg.attr}: expected {reg.size * 8} bits, not {value:#x}"
                )

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
            lacks_read = reg.access in READ_SIDE and not has_read
            if lacks_read or (reg.access in WRITE_SIDE and not has_command):
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
