"""What accesses are counted by: each key gives every access of a batch the number of its label.

Windows whose registers depend on earlier writes are small automata: only the writes that select are
stepped through one by one, all else is arithmetic on arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.errors import FormatError
from workbench.trace.columns import Ints, Words, coded, integers, words
from workbench.trace.decode import Decoder, WindowDecoder

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

Label = tuple[str, ...]
"""What a count belongs to: ("com1",), ("com1", "LSR"), ("com1", "THR", "0x41"), ..."""
Labeller = Callable[["pa.Table"], Ints]

NOBODY: Final = "(nothing)"
OTHERS: Final = "(others)"
_DENSE: Final = 1 << 16
_REGISTER: Final = ("kind", "device", "offset", "size", "write", "value")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "device": ("device",),
    "register": _REGISTER,
    "value": _REGISTER,
    "direction": ("write",),
    "pc": ("pc",),
    "function": ("pc",),
    "phase": ("icount",),
}
"""The keys, and the columns of `accesses` that each looks at."""


class Labels:
    """Numbers for labels, in order of appearance; those beyond a bound share one."""

    def __init__(self, most: int) -> None:
        self.known: dict[Label, int] = {}
        self._most = most

    def number(self, label: Label) -> int:
        """Give the number of a label."""
        if len(self.known) >= self._most and label not in self.known:
            label = (OTHERS,)
        return self.known.setdefault(label, len(self.known))

    def numbers(self, labels: list[Label]) -> Ints:
        """Give the numbers of some labels."""
        return np.array([self.number(label) for label in labels] or [0], np.int64)


def labeller(
    keys: tuple[str, ...], trace: Trace, labels: Labels, symbols: SymbolTable | None
) -> Labeller:
    """Make the function that labels a batch by one key, or by several at once."""
    if len(keys) == 1:
        return _single(keys[0], trace, labels, symbols)
    inner = [Labels(1 << 20) for _ in keys]
    parts = [_single(k, trace, own, symbols) for k, own in zip(keys, inner, strict=True)]

    def combined(batch: pa.Table) -> Ints:
        ids = parts[0](batch)
        pairs: list[Label] = list(inner[0].known)
        for part, own in zip(parts[1:], inner[1:], strict=True):
            more = part(batch)
            names = list(own.known)
            found, ids = encode(ids * len(names) + more)
            pairs = [pairs[n // len(names)] + names[n % len(names)] for n in found]
        return labels.numbers(pairs)[ids]

    return combined


def _single(key: str, trace: Trace, labels: Labels, symbols: SymbolTable | None) -> Labeller:
    if key in ("register", "value"):
        return _Registers(trace, labels, with_value=key == "value").label
    if key == "direction":
        ways = labels.numbers([("read",), ("write",)])
        return lambda batch: ways[integers(batch["write"])]
    if key == "phase":
        from workbench.trace.phases import phases

        found = phases(trace)
        starts = np.array([phase.icount for phase in found], np.int64)
        numbers = labels.numbers([(phase.name,) for phase in found])
        return lambda batch: numbers[
            np.searchsorted(starts, integers(batch["icount"]), "right").clip(1) - 1
        ]

    def text(value: Any) -> Label:
        if key == "device":
            return (value or NOBODY,)
        if key == "function" and symbols is not None:
            return (symbols.function(value),)
        return (symbols.text(value) if symbols is not None else f"{value:#x}",)

    def label(batch: pa.Table) -> Ints:
        codes, names = coded(batch["device" if key == "device" else "pc"])
        return labels.numbers([text(name) for name in names])[codes]

    return label


class _Registers:
    """Labels accesses with device and register, and perhaps the value."""

    def __init__(self, trace: Trace, labels: Labels, with_value: bool) -> None:
        self._decoder = Decoder(trace.header.machine)
        self._labels = labels
        self._with_value = with_value
        self._registers = Labels(1 << 17) if with_value else labels

    def label(self, batch: pa.Table) -> Ints:
        """Give the numbers of the labels of all accesses of a batch."""
        ids = self._label(batch)
        if not self._with_value:
            return ids
        codes, found = coded(batch["value"])
        pairs, which = encode(ids * max(1, len(found)) + codes)
        registers = list(self._registers.known)
        labels = [(*registers[n // len(found)], f"{found[n % len(found)]:#x}") for n in pairs]
        return self._labels.numbers(labels)[which]

    def _label(self, batch: pa.Table) -> Ints:
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        offsets, offset_values = coded(batch["offset"])
        sizes, writes = integers(batch["size"]), integers(batch["write"])
        names, many = max(1, len(device_names)), max(1, len(offset_values))
        if len(kind_names) * names * many >= 1 << 53:
            raise FormatError("the accesses have too many different devices and offsets")
        key = (((kinds * names + devices) * many + offsets) * 256 + sizes) * 2 + writes
        found, codes = encode(key)
        windows: dict[tuple[str, str], list[_Place]] = {}
        for code, place in enumerate(found):
            offset, window = place // 512 % many, place // 512 // many
            kind, device = kind_names[window // names], device_names[window % names]
            same = windows.setdefault((kind, device), [])
            same.append(_Place(code, offset_values[offset], place // 2 % 256, bool(place % 2)))
        numbers = np.zeros(len(found), np.int64)
        moving: list[tuple[str, WindowDecoder, dict[int, _Place]]] = []
        for (kind, device), places in windows.items():
            decoder = self._decoder.window(kind, device)
            device = device or NOBODY
            if decoder is not None and any(decoder.needs_order(p.write) for p in places):
                moving.append((device, decoder, {p.code: p for p in places}))
                continue
            for p in places:
                numbers[p.code] = self._number(device, decoder, p, 0)
        ids = numbers[codes]
        if not moving:
            return ids
        values = words(batch["value"])
        window_of = np.zeros(len(found), np.uint16)
        for number, (_, _, by_code) in enumerate(moving, start=1):
            window_of[list(by_code)] = number
        inside = window_of[codes]
        for number, (device, decoder, by_code) in enumerate(moving, start=1):
            rows = np.flatnonzero(inside == number)
            ids[rows] = self._in_order(device, decoder, by_code, codes[rows], values[rows])
        return ids

    def _in_order(
        self,
        device: str,
        decoder: WindowDecoder,
        places: dict[int, _Place],
        codes: Ints,
        values: Words,
    ) -> Ints:
        """Label accesses to one window, where a register may depend on what came before."""
        alone = np.zeros(max(places) + 1, np.bool_)
        for p in places.values():
            alone[p.code] = decoder.selects(p.offset, p.size, p.write)
        selecting = alone[codes]
        value_codes, found_values = coded(_as_arrow(values[selecting]))
        # A step is a place, and the value where it matters.
        span = len(alone)
        steps = codes.copy()
        steps[selecting] += (value_codes + 1) * span
        found, steps = encode(steps)
        meant = [(places[n % span], found_values[n // span - 1] if n >= span else 0) for n in found]

        states = {decoder.state: 0}
        known = [decoder.state]
        after: list[dict[int, int]] = [{}]
        before = [0]
        here = 0
        for step in steps[selecting].tolist():
            there = after[here].get(step)
            if there is None:
                decoder.state = known[here]
                place, value = meant[step]
                decoder.decode(place.offset, place.size, value, place.write)
                there = states.setdefault(decoder.state, len(known))
                if there == len(known):
                    known.append(decoder.state)
                    after.append({})
                after[here][step] = there
            here = there
            before.append(here)
        state = np.array(before, np.int64)[np.cumsum(selecting) - selecting]
        pairs, which = encode(state * len(found) + steps)
        numbers = np.empty(len(pairs), np.int64)
        for n, pair in enumerate(pairs):
            decoder.state = known[pair // len(found)]
            numbers[n] = self._number(device, decoder, *meant[pair % len(found)])
        decoder.state = known[here]
        return numbers[which]

    def _number(self, device: str, decoder: WindowDecoder | None, place: _Place, value: int) -> int:
        name = f"+{place.offset:#x}"
        if decoder is not None:
            name = decoder.decode(place.offset, place.size, value, place.write).name
        return self._registers.number((device, name))


@dataclass(frozen=True, slots=True)
class _Place:
    """What an access is aimed at, and its number in the batch."""

    code: int
    offset: int
    size: int
    write: bool


def _as_arrow(numbers: Ints | Words) -> pa.ChunkedArray:
    import pyarrow as pa

    kind = pa.type_for_alias(str(numbers.dtype))
    part = pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
    return pa.chunked_array([part])


def encode(numbers: Ints) -> tuple[list[int], Ints]:
    """Different numbers, none of them negative, and for each number its place among them."""
    most = int(numbers.max()) if len(numbers) else 0
    if most < 4 * len(numbers) + _DENSE:
        there = np.zeros(most + 1, np.bool_)
        there[numbers] = True
        found = np.flatnonzero(there)
        place = np.zeros(most + 1, np.int64)
        place[found] = np.arange(len(found))
        return found.tolist(), place[numbers]

    codes, known = coded(_as_arrow(np.ascontiguousarray(numbers)))
    return known, codes
