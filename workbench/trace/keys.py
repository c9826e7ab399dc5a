"""What accesses are counted by. A key turns a batch into codes, and codes into labels.

The first (`code`) is arithmetic on columns, knows nothing of other batches and runs in any thread; the
second (`names`) sees only the few different codes of a batch, one batch after the other. So the
work for each access is a dozen operations on arrays, whatever is counted. Registers that depend on
what was written before are in `keys_registers`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from workbench.trace.columns import Ints, coded, encode, integers

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

Label = tuple[str, ...]
"""What a count belongs to: ("com1",), ("com1", "LSR"), ("com1", "THR", "0x41"), ..."""

NOBODY: Final = "(nothing)"
OTHERS: Final = "(others)"
NAMES: Final = ("device", "register", "direction", "value", "pc", "function", "phase")
"""The keys."""


class Key(Protocol):
    """One way to count."""

    columns: tuple[str, ...]
    """The columns of `accesses` that it looks at."""
    in_order: bool
    """Whether `code`, too, has to see one batch after the other."""

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Give each access of a batch a small number, and what `names` needs to know of them."""

    def names(self, about: Any) -> list[Hashable]:
        """Give what each number of a batch stands for; called in the order of the batches."""

    def label(self, name: Hashable) -> Label:
        """Give the label of a name."""


class Labels:
    """Numbers for names, in order of appearance; those beyond a bound share one."""

    def __init__(self, most: int) -> None:
        self.known: dict[Hashable, int] = {}
        self._most = most

    def numbers(self, names: list[Hashable]) -> Ints:
        """Give the numbers of some names."""
        known = self.known
        found = np.fromiter((known.get(name, -1) for name in names), np.int64, len(names))
        for place in np.flatnonzero(found < 0).tolist():
            name: Hashable = names[place]
            if len(known) >= self._most and name not in known:
                name = None
            found[place] = known.setdefault(name, len(known))
        return found


def make(keys: tuple[str, ...], trace: Trace, symbols: SymbolTable | None) -> Key:
    """Make one key, or one of several joined."""
    parts = [_single(name, trace, symbols) for name in keys]
    return parts[0] if len(parts) == 1 else Joined(parts)


def _single(name: str, trace: Trace, symbols: SymbolTable | None) -> Key:
    if name in ("register", "value"):
        from workbench.trace import keys_registers

        registers = keys_registers.Registers(trace)
        return registers if name == "register" else keys_registers.Values(registers)
    if name == "direction":
        return Direction()
    if name == "phase":
        return Phase(trace)
    if name == "device":
        return Column("device", lambda device: device or NOBODY)
    if symbols is None:
        return Column("pc", lambda pc: f"{pc:#x}")
    return Column("pc", symbols.function if name == "function" else symbols.text)


class Column:
    """The values of one column, as text."""

    in_order = False

    def __init__(self, name: str, text: Callable[[Any], str]) -> None:
        self.columns = (name,)
        self._text = text
        self._known: dict[Any, str] = {}

    def code(self, batch: pa.Table) -> tuple[Ints, list[Any]]:
        """Give the codes of a dictionary."""
        return coded(batch[self.columns[0]])

    def names(self, about: list[Any]) -> list[Hashable]:
        """Give the texts."""
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
        return [self._known.get(value) or self._new(value) for value in about]

    def _new(self, value: Any) -> str:
        return self._known.setdefault(value, self._text(value))

    def label(self, name: Hashable) -> Label:
        """Give the label."""
        return (str(name),)


class Direction:
    """Reads and writes."""

    columns = ("write",)
    in_order = False

    def code(self, batch: pa.Table) -> tuple[Ints, None]:
        """Take the flag."""
        return integers(batch["write"]), None

    def names(self, about: None) -> list[Hashable]:
        """Name the flag."""
        return ["read", "write"]

    def label(self, name: Hashable) -> Label:
        """Give the label."""
        return (str(name),)


class Phase:
    """Phases of the run (`workbench.trace.phases`)."""

    columns = ("icount",)
    in_order = False

    def __init__(self, trace: Trace) -> None:
        from workbench.trace.phases import phases

        found = phases(trace)
        self._starts = np.array([phase.icount for phase in found], np.int64)
        self._names: list[Hashable] = [phase.name for phase in found]

    def code(self, batch: pa.Table) -> tuple[Ints, None]:
        """Find the last phase that began."""
        after = np.searchsorted(self._starts, integers(batch["icount"]), "right")
        return after.clip(1) - 1, None

    def names(self, about: None) -> list[Hashable]:
        """Name them."""
        return self._names

    def label(self, name: Hashable) -> Label:
        """Give the label."""
        return (str(name),)


class Joined:
    """Several keys at once."""

    def __init__(self, parts: list[Key]) -> None:
        self._parts = parts
        self.columns = tuple(dict.fromkeys(name for part in parts for name in part.columns))
        self.in_order = any(part.in_order for part in parts)

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Number the different combinations."""
        codes, first = self._parts[0].code(batch)
        about: list[Any] = [(first, 0, [])]
        for part in self._parts[1:]:
            more, own = part.code(batch)
            width = int(more.max(initial=0)) + 1
            found, codes = encode(codes * width + more)
            about.append((own, width, found))
        return codes, about

    def names(self, about: Any) -> list[Hashable]:
        """Name the combinations."""
        first, *rest = about
        pairs: list[tuple[Hashable, ...]] = [(name,) for name in self._parts[0].names(first[0])]
        for part, (own, width, found) in zip(self._parts[1:], rest, strict=True):
            names = part.names(own)
            pairs = [(*pairs[n // width], names[n % width]) for n in found]
        return list(pairs)

    def label(self, name: Hashable) -> Label:
        """Put the labels together."""
        assert isinstance(name, tuple)
        return tuple(
            text
            for part, own in zip(self._parts, name, strict=True)
            for text in part.label(own)
        )


_MOST_KEPT: Final = 1 << 17
