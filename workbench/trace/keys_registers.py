"""Accesses by register, and by register and value.

Which register an access is aimed at follows from window, offset, size and direction, except in
windows where an earlier write has selected it (a UART's DLAB, an index register). Those are cut
into segments at the writes that select. Within a segment a place has one meaning, and the few
different pairs of segment and place are decoded, not the accesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.errors import FormatError
from workbench.trace.columns import Ints, coded, encode, encode_words, integers, words
from workbench.trace.decode import Decoder, WindowDecoder
from workbench.trace.keys import NO_NAME, NOBODY, Label, Names, Texts

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

_MOST_KEPT: Final = 1 << 17
_MOST_STEPS: Final = 1 << 16
_MOST_STATES: Final = 1 << 21  # more than a batch has accesses
_FEW: Final = 4
"""Accesses of a segment that are not worth looking for those that are equal."""
_MOST_VALUES: Final = 1 << 20
_WORD: Final = (1 << 64) - 1


class _Window:
    """One window, and what is selected in it."""

    def __init__(self, device: str, decoder: WindowDecoder | None) -> None:
        self.device = device
        self.decoder = decoder
        self.states = Texts(_MOST_STATES)
        """What was selected, by number."""
        self.steps: dict[tuple[int, _Place, int], tuple[int, int]] = {}
        """By state, place and value of a write that selects: its register, and the next state."""
        self.registers: dict[tuple[int, _Place], int] = {}
        """By state and place of an access that selects nothing."""
        self.select(None if decoder is None else decoder.state)

    def select(self, selected: Any) -> None:
        """Select something."""
        self.state = self.states.number(selected)

    def forget(self) -> None:
        """Forget the numbers of states when there are many; none may be in use."""
        if max(len(self.states.known), len(self.steps), len(self.registers)) > _MOST_STEPS:
            selected = self.states[self.state]
            self.states = Texts(_MOST_STATES)
            self.steps.clear()
            self.registers.clear()
            self.select(selected)


class _Place:
    """What accesses are aimed at: window, offset, size and direction."""

    __slots__ = ("moves", "number", "offset", "selects", "size", "window", "write")

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


@dataclass(slots=True)
class _Segments:
    """The accesses of a batch to a window where something is selected.

    Their codes are places of `pairs`, which are `segment * span + place`, of a place with its
    number in the batch. `steps` are places and values of the writes that select: the one with
    number n ends segment n.
    """

    window: _Window
    span: int
    pairs: Ints
    steps: tuple[list[int], list[int]]
    states: list[int] = field(default_factory=list)
    """That of each segment; `follow` finds them."""
    registers: list[int] = field(default_factory=list)
    """Those of the steps, likewise."""


@dataclass(slots=True)
class _Batch:
    """What the codes of a batch stand for: its places, and from `first` on the ones in segments."""

    places: list[_Place]
    first: int
    segments: list[_Segments]
    states: dict[_Window, int] = field(default_factory=dict)
    """Of windows that have no segments; `follow` finds them."""


class Registers:
    """Counts by device and register; a name is a number in `_labels`."""

    columns: tuple[str, ...] = ("kind", "device", "offset", "size", "write", "value")

    def __init__(self, trace: Trace) -> None:
        self._labels = Texts(_MOST_KEPT)
        self._decoder = Decoder(trace.header.machine)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._places: dict[tuple[str, str, int, int, bool], _Place] = {}
        self._lock = Lock()

    def label(self, name: int) -> Label:
        """Give device and register."""
        return self._labels[name]  # type: ignore[no-any-return]

    def _window(self, kind: str, device: str) -> _Window:
        window = self._windows.get((kind, device))
        if window is None:
            if len(self._windows) > _MOST_KEPT:
                raise FormatError("the accesses are to too many different devices")
            decoder = self._decoder.window(kind, device)
            window = self._windows[kind, device] = _Window(device or NOBODY, decoder)
        return window

    def _place(self, kind: str, device: str, offset: int, size: int, write: bool) -> _Place:
        if len(self._places) > _MOST_KEPT:
            self._places.clear()
        place = _Place(self._window(kind, device), offset, size, write)
        self._places[kind, device, offset, size, write] = place
        return place

    # -- for each access -------------------------------------------------------------------------

    def code(self, batch: pa.Table) -> tuple[Ints, _Batch]:
        """Number the places of a batch, apart for each segment where something is selected."""
        codes, places = self._find(batch)
        span = first = len(places)
        about = _Batch(places, first, [])
        selects = np.array([place.selects for place in places], np.bool_)
        selecting = np.flatnonzero(selects[codes])
        if not len(selecting):
            return codes, about
        at = codes[selecting]
        values = words(batch["value"])[selecting]
        number: dict[_Window, int] = {}
        for code in np.flatnonzero(np.bincount(at)).tolist():
            number.setdefault(places[code].window, len(number) + 1)
        kind = np.uint8 if len(number) < 256 else np.int64
        window_of = np.array([number.get(place.window, 0) for place in places], kind)
        inside = window_of[codes]
        inside_selecting = inside[selecting]
        for window, n in number.items():
            rows = np.flatnonzero(inside == n)
            steps = np.flatnonzero(inside_selecting == n)
            begins = np.zeros(len(rows) + 1, np.int64)
            begins[np.searchsorted(rows, selecting[steps]) + 1] = span
            segment = np.cumsum(begins[:-1])
            segment += codes[rows]
            alone = len(rows) < _FEW * len(steps)
            pairs, own = (segment, np.arange(len(rows))) if alone else encode(segment)
            codes[rows] = own + first
            chosen = (at[steps].tolist(), values[steps].tolist())
            about.segments.append(_Segments(window, span, pairs, chosen))
            first += len(pairs)
        return codes, about

    def _find(self, batch: pa.Table) -> tuple[Ints, list[_Place]]:
        """Number the different places of a batch."""
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        different_offsets, offsets = encode_words(words(batch["offset"]))
        names, many = max(1, len(device_names)), max(1, len(different_offsets))
        if len(kind_names) * names * many >= 1 << 53:
            raise FormatError("the accesses have too many different devices and offsets")
        codes = kinds * names
        codes += devices
        codes *= many
        codes += offsets
        different, codes = encode(codes)
        size = integers(batch["size"])
        sizes = int(size.max(initial=0)) + 1
        codes *= sizes
        codes += size
        codes *= 2
        codes += integers(batch["write"])
        found = np.flatnonzero(np.bincount(codes))
        pair, size_of = np.divmod(found >> 1, sizes)
        window, at = np.divmod(different[pair], many)
        kind, device = np.divmod(window, names)
        keys = zip(
            [kind_names[n] for n in kind.tolist()],
            [device_names[n] for n in device.tolist()],
            different_offsets[at].tolist(),
            size_of.tolist(),
            (found & 1 != 0).tolist(),
            strict=True,
        )
        known = self._places
        with self._lock:
            places = [known.get(key) or self._place(*key) for key in keys]
        dense = np.empty(int(found.max(initial=0)) + 1, np.int64)
        dense[found] = np.arange(len(found))
        return dense[codes], places

    # -- in order --------------------------------------------------------------------------------

    def follow(self, about: _Batch) -> None:
        """Go through the writes that select; the names of batches before have been asked for."""
        for window in {place.window for place in about.places if place.moves}:
            window.forget()
            about.states[window] = window.state
        for part in about.segments:
            window, here = part.window, part.window.state
            assert window.decoder is not None
            part.states.append(here)
            for code, value in zip(*part.steps, strict=True):
                place = about.places[code]
                step = window.steps.get((here, place, value))
                if step is None:
                    window.decoder.state = window.states[here]
                    register = window.decoder.decode(place.offset, place.size, value, True)
                    after = window.states.number(window.decoder.state)
                    step = self._labels.number((window.device, register.name)), after
                    window.steps[here, place, value] = step
                number, here = step
                part.registers.append(number)
                part.states.append(here)
            window.state = here

    def take(self, states: Mapping[tuple[str, str], Any]) -> None:
        """Begin where a decoder is that has seen all before: with the states of its windows."""
        for key, state in states.items():
            self._window(*key).select(state)

    # -- for each code ---------------------------------------------------------------------------

    def names(self, about: _Batch, found: Ints) -> Ints:
        """Name the registers of a batch."""
        plain = int(np.searchsorted(found, about.first))
        places = [about.places[code] for code in found[:plain].tolist()]
        own = [self._number(place, about.states.get(place.window, 0)) for place in places]
        numbers = np.array(own, np.int64)
        if plain == len(found):
            return numbers
        inside = np.concatenate([self._in_segments(s, about.places) for s in about.segments])
        return np.concatenate([numbers, inside[found[plain:] - about.first]])

    def _in_segments(self, part: _Segments, places: list[_Place]) -> Ints:
        segment, code = np.divmod(part.pairs, part.span)
        ends = code == np.array([*part.steps[0], -1], np.int64)[segment]
        found = np.array([*part.registers, NO_NAME], np.int64)[segment]
        others = np.flatnonzero(~ends)
        states = np.array(part.states, np.int64)[segment[others]]
        different, which = encode(states * part.span + code[others])
        pairs = [divmod(pair, part.span) for pair in different.tolist()]
        numbers = [self._number(places[code], state) for state, code in pairs]
        found[others] = np.array(numbers, np.int64)[which]
        return found

    def _number(self, place: _Place, state: int) -> int:
        """The register of a place whose accesses select nothing, in a state of its window."""
        if place.number >= 0:
            return place.number
        window, decoder = place.window, place.window.decoder
        if decoder is None:
            place.number = self._labels.number((window.device, f"+{place.offset:#x}"))
            return place.number
        number = window.registers.get((state, place))
        if number is None:
            decoder.state = window.states[state]
            name = decoder.decode(place.offset, place.size, 0, place.write).name
            number = window.registers[state, place] = self._labels.number((window.device, name))
            if not place.moves:
                place.number = number
        return number


class Values:
    """Counts by device, register and value."""

    columns: tuple[str, ...] = Registers.columns

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._values = Names(_MOST_VALUES)

    def code(self, batch: pa.Table) -> tuple[Ints, Any]:
        """Number the different pairs of place and value."""
        codes, places = self._registers.code(batch)
        values, value_codes = encode_words(words(batch["value"]))
        codes *= max(1, len(values))
        codes += value_codes
        pairs, codes = encode(codes)
        return codes, (places, values, pairs)

    def follow(self, about: Any) -> None:
        """Follow what is selected."""
        self._registers.follow(about[0])

    def names(self, about: Any, found: Ints) -> Ints:
        """Give numbers of pairs of register and value."""
        places, values, pairs = about
        place, value = np.divmod(pairs[found], max(1, len(values)))
        different, which = encode(place)
        registers = self._registers.names(places, different)[which]
        numbers = self._values.numbers(values.view(np.int64))[value]
        return np.where(
            (registers < 0) | (numbers < 0), NO_NAME, registers * _MOST_VALUES + numbers
        )

    def label(self, name: int) -> Label:
        """Give device, register and value."""
        register, value = divmod(name, _MOST_VALUES)
        return (*self._registers.label(register), f"{self._values.known[value] & _WORD:#x}")
