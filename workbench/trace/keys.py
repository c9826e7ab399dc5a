"""What accesses are counted by. A key turns a batch into codes, and codes into names and labels.

The first (`code`) is arithmetic on columns and knows nothing of other batches; the second (`names`)
sees only the few different codes of a batch. So the work for each access is a dozen operations on
arrays, whatever is counted. Registers, which depend on what was written before, are in
`keys_registers`: there `follow` sees one batch after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from workbench.errors import FormatError
from workbench.trace.columns import Ints, coded, encode, integers

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

Label = tuple[str, ...]
"""What a count belongs to: ("com1",), ("com1", "LSR"), ("com1", "THR", "0x41"), ..."""

NOBODY: Final = "(nothing)"
OTHERS: Final = "(others)"
NO_REQUEST: Final = "(no request)"
NAMES: Final = (
    "device", "register", "direction", "value", "pc", "function", "phase", "request-kind",
)  # fmt: skip
"""The keys."""
NO_NAME: Final = -1
"""The name of all that came when there were too many names already."""
_MOST_NAMES: Final = 1 << 20


class Key(Protocol):
    """One way to count."""

    columns: tuple[str, ...]
    """The columns of `accesses` that it looks at."""

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Give each access of a batch a small number, and what `names` needs to know of them.

        May be called in several threads at once. The array of numbers is the caller's.
        """

    def follow(self, about: Any) -> None:
        """Follow what the accesses of a batch change for later ones; called for one batch after
        the other, before their `names`.
        """

    def names(self, about: Any, found: Ints) -> Ints:
        """Give the names of the numbers that were found, which rise.

        Names are numbers, too, which mean the same in all batches; `NO_NAME` beyond a bound.
        """

    def label(self, name: int) -> Label:
        """Give the label of a name."""


class Unordered:
    """A key whose accesses have the same name wherever they are."""

    def follow(self, about: Any) -> None:
        """Nothing is followed."""


class Names:
    """Numbers for large numbers, in order of appearance; those beyond a bound have `NO_NAME`."""

    def __init__(self, most: int = _MOST_NAMES) -> None:
        self.known: list[int] = []
        self._most = most
        self._sorted: Ints = np.array([np.iinfo(np.int64).max])
        self._numbers: Ints = np.array([NO_NAME])

    def numbers(self, large: Ints) -> Ints:
        """Give the numbers of some."""
        place = np.searchsorted(self._sorted, large)
        new = np.flatnonzero(self._sorted[place] != large)
        if len(new):
            more = list(dict.fromkeys(large[new].tolist()))[: self._most - len(self.known)]
            numbers = np.arange(len(self.known), len(self.known) + len(more))
            self.known += more
            order = np.argsort(more)
            places = np.searchsorted(self._sorted, np.array(more, np.int64)[order])
            self._sorted = np.insert(self._sorted, places, np.array(more, np.int64)[order])
            self._numbers = np.insert(self._numbers, places, numbers[order])
            place = np.searchsorted(self._sorted, large)
        return np.where(self._sorted[place] == large, self._numbers[place], NO_NAME)


class Texts:
    """Numbers for things that can be looked up, likewise."""

    def __init__(self, most: int = _MOST_NAMES) -> None:
        self.known: dict[Any, int] = {}
        self._most = most
        self._all: list[Any] = []

    def number(self, thing: Any) -> int:
        """Give the number of one thing."""
        number = self.known.get(thing)
        if number is None:
            if len(self._all) >= self._most:
                return NO_NAME
            number = self.known[thing] = len(self._all)
            self._all.append(thing)
        return number

    def __getitem__(self, number: int) -> Any:
        return self._all[number]


def in_order(keys: tuple[str, ...]) -> bool:
    """Whether `code`, too, has to see one batch after the other."""
    return "request-kind" in keys


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
    if name == "request-kind":
        return RequestKind(trace)
    if name == "phase":
        return Phase(trace)
    if name == "device":
        return Column("device", lambda device: device or NOBODY)
    if symbols is None:
        return Column("pc", lambda pc: f"{pc:#x}")
    return Column("pc", symbols.function if name == "function" else symbols.text)


class Column(Unordered):
    """The values of one column, as text."""

    columns: tuple[str, ...]

    def __init__(self, name: str, text: Callable[[Any], str]) -> None:
        self.columns = (name,)
        self._text = text
        self._texts = Texts()
        self._known: dict[Any, int] = {}

    def code(self, batch: pa.Table) -> tuple[Ints, list[Any]]:
        """Give the codes of a dictionary."""
        return coded(batch[self.columns[0]])

    def names(self, about: list[Any], found: Ints) -> Ints:
        """Give the numbers of the texts."""
        known = self._known
        if len(known) > _MOST_NAMES:
            known.clear()
        names = []
        for code in found.tolist():
            value = about[code]
            name = known.get(value)
            if name is None:
                name = known[value] = self._texts.number(self._text(value))
            names.append(name)
        return np.array(names, np.int64)

    def label(self, name: int) -> Label:
        """Give the text."""
        return (self._texts[name],)


class _Few(Unordered):
    """Names that are known from the start."""

    def __init__(self, all_names: list[str]) -> None:
        self._all = all_names

    def names(self, about: None, found: Ints) -> Ints:
        """Codes are names."""
        return found

    def label(self, name: int) -> Label:
        """Give the text."""
        return (self._all[name],)


class Direction(_Few):
    """Reads and writes."""

    columns: tuple[str, ...] = ("write",)

    def __init__(self) -> None:
        super().__init__(["read", "write"])

    def code(self, batch: pa.Table) -> tuple[Ints, None]:
        """Take the flag."""
        return integers(batch["write"]), None


class Phase(_Few):
    """Phases of the run (`workbench.trace.phases`)."""

    columns: tuple[str, ...] = ("icount",)

    def __init__(self, trace: Trace) -> None:
        from workbench.trace.phases import phases

        found = phases(trace)
        super().__init__([phase.name for phase in found])
        self._starts = np.array([phase.icount for phase in found], np.int64)

    def code(self, batch: pa.Table) -> tuple[Ints, None]:
        """Find the last phase that began."""
        after = np.searchsorted(self._starts, integers(batch["icount"]), "right")
        return after.clip(1) - 1, None


class RequestKind(Unordered):
    """The kind of request that an access belongs to, with its device."""

    columns: tuple[str, ...] = ("seq", "icount", "kind", "device", "offset", "write")

    def __init__(self, trace: Trace) -> None:
        from workbench.trace.requests import Relations

        self._relations = Relations(trace)
        found = self._relations.requests
        kinds = max(1, len(found.kinds))
        codes = found.device * kinds + found.kind
        used, of_request = encode(codes)
        self._of: Ints = np.append(of_request + 1, 0)  # the last one is that of -1, no request
        self._names = [NO_REQUEST] + [
            f"{found.devices[code // kinds]} {found.kinds[code % kinds]}" for code in used.tolist()
        ]

    def code(self, batch: pa.Table) -> tuple[Ints, None]:
        """Ask for the request of each access."""
        return self._of[self._relations.accesses(batch)], None

    def names(self, about: None, found: Ints) -> Ints:
        """Codes are names."""
        return found

    def label(self, name: int) -> Label:
        """Give device and kind."""
        return (self._names[name],)


class Joined:
    """Several keys at once."""

    def __init__(self, parts: list[Key]) -> None:
        self._parts = parts
        self._names = [Names() for _ in parts]
        self._pairs = [Names() for _ in parts[1:]]
        self.columns = tuple(dict.fromkeys(name for part in parts for name in part.columns))

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Number the different combinations."""
        codes, first = self._parts[0].code(batch)
        about: list[Any] = []
        for part in self._parts[1:]:
            more, own = part.code(batch)
            width = int(more.max(initial=0)) + 1
            if int(codes.max(initial=0)) >= (1 << 62) // width:
                raise FormatError("the accesses have too many different values")
            codes *= width
            codes += more
            pairs, codes = encode(codes)
            about.append((own, width, pairs))
        return codes, (first, about)

    def follow(self, about: Any) -> None:
        """Let each part follow."""
        first, rest = about
        for part, own in zip(self._parts, (first, *(own for own, _, _ in rest)), strict=True):
            part.follow(own)

    def names(self, about: Any, found: Ints) -> Ints:
        """Name the combinations."""
        first, rest = about
        own = [found]
        for _, width, pairs in reversed(rest):
            before, last = np.divmod(pairs[own[0]], width)
            own[:1] = [before, last]
        abouts = [first, *(own_about for own_about, _, _ in rest)]
        names = [
            numbers.numbers(_once(part, about, codes))
            for part, about, codes, numbers in zip(
                self._parts, abouts, own, self._names, strict=True
            )
        ]
        joined = names[0]
        for more, pairs in zip(names[1:], self._pairs, strict=True):
            both = pairs.numbers(joined * _MOST_NAMES + more)
            joined = np.where((joined < 0) | (more < 0), NO_NAME, both)
        return joined

    def label(self, name: int) -> Label:
        """Put the labels together."""
        label: Label = ()
        for part, numbers, pairs in zip(
            self._parts[:0:-1], self._names[:0:-1], self._pairs[::-1], strict=True
        ):
            name, last = divmod(pairs.known[name], _MOST_NAMES)
            label = part.label(numbers.known[last]) + label
        return self._parts[0].label(self._names[0].known[name]) + label


def _once(part: Key, about: Any, codes: Ints) -> Ints:
    """The names of codes of which some are there more than once."""
    found, which = encode(codes)
    return part.names(about, found)[which]
