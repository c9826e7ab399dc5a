"""Accesses by register, and by register and value.

Which register an access is aimed at follows from window, offset, size and direction, except in
windows where an earlier write has selected it (a UART's DLAB, an index register). Those are cut
into segments at the writes that select. Within a segment a place has one meaning, and the few
different pairs of segment and place are decoded, not the accesses.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.errors import FormatError
from workbench.trace.columns import Ints, coded, encode, integers, words
from workbench.trace.decode import Decoder, WindowDecoder
from workbench.trace.keys import NOBODY, OTHERS, Label

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

_MOST_KEPT: Final = 1 << 17
_MOST_STEPS: Final = 1 << 16


class _Window:
    """One window; `names` alone follows its decoder."""

    def __init__(self, device: str, decoder: WindowDecoder | None) -> None:
        self.device = device
        self.decoder = decoder
        self.steps: dict[tuple[Any, _Place, int], tuple[int, Any]] = {}
        """By state, place and value of a write that selects: its register, and the next state."""


class _Place:
    """What accesses are aimed at: window, offset, size and direction."""

    __slots__ = ("moves", "number", "numbers", "offset", "selects", "size", "window", "write")

    def __init__(self, window: _Window, offset: int, size: int, write: bool) -> None:
        self.window = window
        self.offset = offset
        self.size = size
        self.write = write
        decoder = window.decoder
        self.moves = decoder is not None and decoder.needs_order(write)
        """Whether its register depends on what was selected."""
        self.selects = decoder is not None and self.moves and decoder.selects(offset, size, write)
        self.number = -1
        """That of the register, once it is known and if it never moves."""
        self.numbers: dict[Any, int] = {}
        """By state, if it moves."""


@dataclass(slots=True)
class _Segments:
    """The accesses of a batch to a window where something is selected.

    Their codes begin at `first`; the pairs are `segment * len(places) + place`, of a place with its
    number in the batch. `steps` are the writes that select: the one with number n ends segment n.
    """

    window: _Window
    pairs: list[int]
    steps: list[tuple[int, int]]


@dataclass(slots=True)
class _Batch:
    """What the codes of a batch stand for: first its places, then those in segments."""

    places: list[_Place]
    segments: list[_Segments]


class Registers:
    """Counts by device and register; a name is a number in `known`."""

    columns = ("kind", "device", "offset", "size", "write", "value")
    in_order = False

    def __init__(self, trace: Trace) -> None:
        self.known: dict[Label, int] = {}
        self._labels: list[Label] = []
        self._decoder = Decoder(trace.header.machine)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._places: dict[tuple[str, str, int, int, bool], _Place] = {}
        self._lock = Lock()

    def label(self, name: Hashable) -> Label:
        """Give device and register."""
        assert isinstance(name, int)
        return self._labels[name]

    def _place(self, kind: str, device: str, offset: int, size: int, write: bool) -> _Place:
        """Make a place; `code` may run in several threads."""
        with self._lock:
            window = self._windows.get((kind, device))
            if window is None:
                if len(self._windows) > _MOST_KEPT:
                    raise FormatError("the accesses are to too many different devices")
                decoder = self._decoder.window(kind, device)
                window = self._windows[kind, device] = _Window(device or NOBODY, decoder)
            if len(self._places) > _MOST_KEPT:
                self._places.clear()
            place = _Place(window, offset, size, write)
            return self._places.setdefault((kind, device, offset, size, write), place)

    # -- for each access -------------------------------------------------------------------------

    def code(self, batch: pa.Table) -> tuple[Ints, _Batch]:
        """Number the places of a batch, apart for each segment where something is selected."""
        codes, places = self._find(batch)
        about = _Batch(places, [])
        selects = np.array([place.selects for place in places], np.bool_)
        if not selects.any():
            return codes, about
        selecting = np.flatnonzero(selects[codes])
        at = codes[selecting].tolist()
        values = words(batch["value"])[selecting].tolist()
        windows = list(dict.fromkeys(places[code].window for code in at))
        number = {window: n for n, window in enumerate(windows, start=1)}
        window_of = np.array([number.get(place.window, 0) for place in places], np.uint32)
        inside = window_of[codes]
        inside_selecting = inside[selecting]
        codes = codes.copy()
        first = len(places)
        for window, n in number.items():
            rows = np.flatnonzero(inside == n)
            steps = np.flatnonzero(inside_selecting == n)
            begins = np.zeros(len(rows) + 1, np.int64)
            begins[np.searchsorted(rows, selecting[steps]) + 1] = 1
            segment = np.cumsum(begins[:-1])
            pairs, own = encode(segment * len(places) + codes[rows])
            codes[rows] = own + first
            first += len(pairs)
            chosen = [(at[step], values[step]) for step in steps.tolist()]
            about.segments.append(_Segments(window, pairs, chosen))
        return codes, about

    def _find(self, batch: pa.Table) -> tuple[Ints, list[_Place]]:
        """Number the different places of a batch."""
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        offsets, offset_values = coded(batch["offset"])
        size = integers(batch["size"])
        names, many = max(1, len(device_names)), max(1, len(offset_values))
        sizes = int(size.max(initial=0)) + 1
        if len(kind_names) * names * many >= 1 << 53:
            raise FormatError("the accesses have too many different devices and offsets")
        # One after the other, so that the numbers stay small enough for tables.
        windows, codes = encode(kinds * names + devices)
        pairs, codes = encode(codes * many + offsets)
        found, codes = encode((codes * sizes + size) * 2 + integers(batch["write"]))
        known, places = self._places, []
        for code in found:
            pair, size_of = divmod(code >> 1, sizes)
            window, offset = divmod(pairs[pair], many)
            kind, device = divmod(windows[window], names)
            key = (
                kind_names[kind], device_names[device], offset_values[offset], size_of, code & 1 == 1
            )  # fmt: skip
            places.append(known.get(key) or self._place(*key))
        return codes, places

    # -- for each code ---------------------------------------------------------------------------

    def names(self, about: _Batch) -> list[Hashable]:
        """Name the registers of a batch and follow what is selected."""
        # Of a window with segments no access has the code of a place.
        inside = {part.window for part in about.segments}
        names: list[Hashable] = [
            0 if place.window in inside else self._number(place) for place in about.places
        ]
        for part in about.segments:
            names += self._in_segments(part, about.places)
        return names

    def _in_segments(self, part: _Segments, places: list[_Place]) -> list[int]:
        window, decoder = part.window, part.window.decoder
        assert decoder is not None
        here = decoder.state
        states, own, ends = [here], [], []
        if len(window.steps) > _MOST_STEPS:
            window.steps.clear()
        for code, value in part.steps:
            place = places[code]
            step = window.steps.get((here, place, value))
            if step is None:
                decoder.state = here
                register = decoder.decode(place.offset, place.size, value, True)
                step = self._new((window.device, register.name)), decoder.state
                window.steps[here, place, value] = step
            number, here = step
            own.append(number)
            ends.append(code)
            states.append(here)
        ends.append(-1)
        found = []
        for pair in part.pairs:
            segment, code = divmod(pair, len(places))
            if ends[segment] == code:
                found.append(own[segment])
                continue
            place = places[code]
            number = place.number
            if number < 0 and (number := place.numbers.get(states[segment], -1)) < 0:
                decoder.state = states[segment]
                number = self._number(place)
            found.append(number)
        decoder.state = here
        return found

    def _number(self, place: _Place) -> int:
        """The register of a place whose accesses do not select anything, in the present state."""
        if place.number >= 0:
            return place.number
        decoder = place.window.decoder
        if decoder is None:
            place.number = self._new((place.window.device, f"+{place.offset:#x}"))
            return place.number
        state = decoder.state
        number = place.numbers.get(state)
        if number is None:
            name = decoder.decode(place.offset, place.size, 0, place.write).name
            decoder.state = state
            number = self._new((place.window.device, name))
            if not place.moves:
                place.number = number
            elif len(place.numbers) > _MOST_STEPS:
                place.numbers.clear()
            place.numbers[state] = number
        return number

    def _new(self, label: Label) -> int:
        if len(self.known) >= _MOST_KEPT and label not in self.known:
            label = (OTHERS,)
        number = self.known.setdefault(label, len(self.known))
        if number == len(self._labels):
            self._labels.append(label)
        return number


class Values:
    """Counts by device, register and value."""

    columns = Registers.columns
    in_order = False

    def __init__(self, registers: Registers) -> None:
        self._registers = registers

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Number the different pairs of place and value."""
        codes, places = self._registers.code(batch)
        value_codes, values = coded(batch["value"])
        found, codes = encode(codes * max(1, len(values)) + value_codes)
        return codes, (places, values, found)

    def names(self, about: Any) -> list[Hashable]:
        """Give pairs of register and value."""
        places, values, found = about
        registers = self._registers.names(places)
        many = len(values)
        return [(registers[n // many], values[n % many]) for n in found]

    def label(self, name: Hashable) -> Label:
        """Give device, register and value."""
        assert isinstance(name, tuple)
        return (*self._registers.label(name[0]), f"{name[1]:#x}")
