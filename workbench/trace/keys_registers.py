"""Accesses by register, and by register and value.

Which register an access is aimed at follows from window, offset, size and direction, except in
windows where an earlier write has selected it (a UART's DLAB, an index register). Those are cut
into segments at the writes that select. Within a segment a place has one meaning, and the few
different pairs of segment and place are decoded, not the accesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.errors import FormatError
from workbench.trace.columns import Ints, coded, encode, integers, words
from workbench.trace.decode import Decoder, WindowDecoder
from workbench.trace.keys import NO_NAME, NOBODY, Label, Texts

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

_MOST_KEPT: Final = 1 << 17
_MOST_STEPS: Final = 1 << 16
_MOST_VALUES: Final = 1 << 20


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

    Their codes begin at `first`; the pairs are `segment * span + place`, of a place with its number
    in the batch. `steps` are the writes that select: the one with number n ends segment n.
    """

    window: _Window
    first: int
    span: int
    pairs: list[int]
    steps: list[tuple[int, int]]


@dataclass(slots=True)
class _Batch:
    """What the codes of a batch stand for: its places, and behind those the ones in segments."""

    places: dict[int, _Place]
    segments: list[_Segments]


class Registers:
    """Counts by device and register; a name is a number in `_labels`."""

    columns: tuple[str, ...] = ("kind", "device", "offset", "size", "write", "value")
    in_order = False

    def __init__(self, trace: Trace) -> None:
        self._labels = Texts(_MOST_KEPT)
        self._decoder = Decoder(trace.header.machine)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._places: dict[tuple[str, str, int, int, bool], _Place] = {}
        self._lock = Lock()

    def label(self, name: int) -> Label:
        """Give device and register."""
        return self._labels[name]  # type: ignore[no-any-return]

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
        first = max(places, default=0) + 1
        selects = np.zeros(first, np.bool_)
        selects[[code for code, place in places.items() if place.selects]] = True
        selecting = np.flatnonzero(selects[codes])
        if not len(selecting):
            return codes, about
        at = codes[selecting].tolist()
        values = words(batch["value"])[selecting].tolist()
        number: dict[_Window, int] = {}
        for code in at:
            number.setdefault(places[code].window, len(number) + 1)
        window_of = np.zeros(first, np.uint8 if len(number) < 256 else np.int64)
        for code, place in places.items():
            window_of[code] = number.get(place.window, 0)
        inside = window_of[codes]
        inside_selecting = inside[selecting]
        span = first
        for window, n in number.items():
            rows = np.flatnonzero(inside == n)
            steps = np.flatnonzero(inside_selecting == n)
            begins = np.zeros(len(rows) + 1, np.int64)
            begins[np.searchsorted(rows, selecting[steps]) + 1] = span
            segment = np.cumsum(begins[:-1])
            segment += codes[rows]
            pairs, own = encode(segment)
            codes[rows] = own + first
            chosen = [(at[step], values[step]) for step in steps.tolist()]
            about.segments.append(_Segments(window, first, span, pairs.tolist(), chosen))
            first += len(pairs)
        return codes, about

    def _find(self, batch: pa.Table) -> tuple[Ints, dict[int, _Place]]:
        """Number the different places of a batch; the numbers have gaps."""
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        offset_values, offsets = _offsets(batch["offset"])
        names, many = max(1, len(device_names)), max(1, len(offset_values))
        if len(kind_names) * names * many >= 1 << 53:
            raise FormatError("the accesses have too many different devices and offsets")
        codes = kinds * names
        codes += devices
        codes *= many
        codes += offsets
        different, codes = encode(codes)
        pairs = different.tolist()
        size = integers(batch["size"])
        sizes = int(size.max(initial=0)) + 1
        codes *= sizes
        codes += size
        codes *= 2
        codes += integers(batch["write"])
        found = np.flatnonzero(np.bincount(codes))
        known = self._places
        places: dict[int, _Place] = {}
        for code in found.tolist():
            pair, size_of = divmod(code >> 1, sizes)
            window, offset = divmod(pairs[pair], many)
            kind, device = divmod(window, names)
            name, write = device_names[device], code & 1 == 1
            key = (kind_names[kind], name, offset_values[offset], size_of, write)
            places[code] = known.get(key) or self._place(*key)
        return codes, places

    # -- for each code ---------------------------------------------------------------------------

    def names(self, about: _Batch, found: Ints) -> Ints:
        """Name the registers of a batch and follow what is selected."""
        names: dict[int, int] = {}
        for part in about.segments:
            names.update(enumerate(self._in_segments(part, about.places), start=part.first))
        places = about.places
        return np.array(
            [
                names[code] if code in names else self._number(places[code])
                for code in found.tolist()
            ],
            np.int64,
        )

    def _in_segments(self, part: _Segments, places: dict[int, _Place]) -> list[int]:
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
                step = self._labels.number((window.device, register.name)), decoder.state
                window.steps[here, place, value] = step
            number, here = step
            own.append(number)
            ends.append(code)
            states.append(here)
        ends.append(-1)
        found = []
        for pair in part.pairs:
            segment, code = divmod(pair, part.span)
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
            place.number = self._labels.number((place.window.device, f"+{place.offset:#x}"))
            return place.number
        state = decoder.state
        number = place.numbers.get(state)
        if number is None:
            name = decoder.decode(place.offset, place.size, 0, place.write).name
            decoder.state = state
            number = self._labels.number((place.window.device, name))
            if not place.moves:
                place.number = number
            elif len(place.numbers) > _MOST_STEPS:
                place.numbers.clear()
            place.numbers[state] = number
        return number


class Values:
    """Counts by device, register and value."""

    columns: tuple[str, ...] = Registers.columns
    in_order = False

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._values = Texts(_MOST_VALUES)

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Number the different pairs of place and value."""
        codes, places = self._registers.code(batch)
        value_codes, values = coded(batch["value"])
        codes *= max(1, len(values))
        codes += value_codes
        pairs, codes = encode(codes)
        return codes, (places, values, pairs)

    def names(self, about: Any, found: Ints) -> Ints:
        """Give numbers of pairs of register and value."""
        places, values, pairs = about
        place, value = np.divmod(pairs[found], max(1, len(values)))
        different, which = encode(place)
        registers = self._registers.names(places, different)[which]
        numbers = np.array([self._values.number(value) for value in values], np.int64)[value]
        return np.where(
            (registers < 0) | (numbers < 0), NO_NAME, registers * _MOST_VALUES + numbers
        )

    def label(self, name: int) -> Label:
        """Give device, register and value."""
        register, value = divmod(name, _MOST_VALUES)
        return (*self._registers.label(register), f"{self._values[value]:#x}")


def _offsets(column: pa.ChunkedArray) -> tuple[list[int], Ints]:
    """Different offsets, and for each access the place of its own."""
    offsets = words(column)
    if int(offsets.max(initial=0)) >> 62:
        codes, found = coded(column)
        return found, codes
    different, codes = encode(offsets.view(np.int64))
    return different.tolist(), codes
