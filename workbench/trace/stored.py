"""Checkpoints that are kept in a trace (`docs/trace-format.md`): how they are read and written.

A checkpoint is the plain values of all devices as JSON, the processor's bytes, and a table that
names each page of RAM (`storedpages.py`).
All of it is untrusted and checked before it reaches a machine.
"""

from __future__ import annotations

import base64
import operator
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from workbench.core.build import source_key
from workbench.core.engine import PAGE
from workbench.core.machine import Machine
from workbench.core.pages import GROUP, ZERO, Ram
from workbench.core.portable import dump_cpu, load_cpu
from workbench.core.snapshot import Snapshot, save_cpu
from workbench.errors import FormatError
from workbench.trace.container import CHECKPOINT, CHECKPOINTS, ChunkInfo
from workbench.trace.header import dump_json, load_json
from workbench.trace.storedpages import PageReader, PageWriter

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

MAX_CHECKPOINTS: Final = 4096
MAX_STATE_BYTES: Final = 48 << 20
_LENGTHS = struct.Struct("<IIQ")  # of the JSON, of the processor; icount
_DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)
"""What a device's `restore` raises for values that fit the format and not the device."""

Put = Callable[..., None]
"""Appends a chunk: kind, payload, rows."""


def to_plain(value: Any) -> Any:
    """Values of a state as JSON has them: bytes, tuples and mappings are wrapped."""
    if isinstance(value, bytes | bytearray):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"t": [to_plain(item) for item in value]}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {"m": [[key, to_plain(item)] for key, item in value.items()]}
    if value is None or isinstance(value, bool | int | str | float):
        return value
    raise TypeError(f"expected plain values in a device's state, not {value!r:.80}")


def from_plain(value: Any) -> Any:
    """The reverse of `to_plain`; raises `FormatError`."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"b": str(text), **rest} if not rest:
            return base64.b64decode(text, validate=True)
        case {"t": list(items), **rest} if not rest:
            return tuple(from_plain(item) for item in items)
        case {"m": list(items), **rest} if not rest:
            pairs = [(item[0], from_plain(item[1])) for item in items if len(item) == 2]
            return dict(pairs)
    raise FormatError("a checkpoint holds a value of an unknown kind")


class Saver:
    """Writes checkpoints of one machine, which is at its beginning, as chunks."""

    def __init__(self, machine: Machine, put: Put) -> None:
        self.icounts: list[int] = []
        self._machine, self._put = machine, put
        self._pages = PageWriter(machine.save().ram, put)

    def add(self) -> bool:
        """Keep the machine's state; False if it cannot be kept here."""
        snapshot = self._machine.save()
        cpu = dump_cpu(self._machine.cpu, snapshot.cpu)
        state = {
            "engine": source_key(),
            "time_ps": snapshot.time_ps,
            "parts": to_plain(snapshot.parts),
        }
        text = dump_json(state)
        if cpu is None or len(text) > MAX_STATE_BYTES or len(self.icounts) == MAX_CHECKPOINTS:
            return False
        self._pages.add(snapshot.ram)
        table = struct.pack(f"<{len(self._pages.table)}I", *self._pages.table)
        lengths = _LENGTHS.pack(len(text), len(cpu), snapshot.icount)
        self._put(CHECKPOINT, lengths + text + cpu + table, rows=0)
        self.icounts.append(snapshot.icount)
        return True

    def finish(self) -> None:
        """Append the list of them."""
        listed = {"engine": source_key(), "icounts": self.icounts, "first": self._pages.first}
        self._put(CHECKPOINTS, dump_json(listed), rows=0)


def listed(trace: Trace) -> tuple[list[int], object]:
    """The instruction counts of the checkpoints in a trace, and how the pages begin (`first`).

    Raises `FormatError` for a list that is damaged, or of another engine.
    """
    chunks = trace.chunks(CHECKPOINT)
    if not chunks:
        return [], None
    if len(chunks) > MAX_CHECKPOINTS:
        raise FormatError(f"there are {len(chunks):,} of them, too many")
    lists = trace.chunks(CHECKPOINTS)
    if len(lists) != 1:
        raise FormatError(f"expected one list of them, not {len(lists)}")
    found = load_json(trace.payload(lists[0]))
    if found.get("engine") != source_key():
        raise FormatError(
            "they were made by another version of the engine"
            " ('workbench checkpoint' makes new ones)"
        )
    icounts = found.get("icounts")
    if not isinstance(icounts, list) or len(icounts) != len(chunks):
        raise FormatError("the list of them is of another length")
    if any(type(icount) is not int for icount in icounts):
        raise FormatError("the list of them holds no instruction counts")
    rising = all(a < b for a, b in zip([0, *icounts], icounts, strict=False))
    if not rising or icounts[-1] > trace.icount:
        raise FormatError("they are not in order")
    return icounts, found.get("first")


class Stored:
    """The checkpoints in a trace; nothing but their counts is read before one is wanted."""

    def __init__(self, trace: Trace, machine: Machine) -> None:
        """`machine` is at the beginning of the run."""
        self._trace, self._machine = trace, machine
        self.problem = ""
        """Why none of them is used, as a sentence; empty while they are."""
        self.icounts: list[int] = []
        self._chunks: list[ChunkInfo] = []
        self._last: tuple[Any, Ram] | None = None
        self._pages: PageReader | None = None
        try:
            self.icounts, pages_before = listed(trace)
            self._chunks = trace.chunks(CHECKPOINT)[: len(self.icounts)]
            if self.icounts:
                self._pages = PageReader(trace, machine.save().ram)
                if self._pages.first != pages_before:
                    raise FormatError("they are of a run that began otherwise")
        except FormatError as error:
            self.give_up(error.what)

    def _read(self, chunk: ChunkInfo) -> tuple[int, dict[str, Any], bytes, bytes]:
        data = self._trace.payload(chunk)
        if len(data) < _LENGTHS.size:
            raise FormatError("one is too short")
        text, cpu, icount = _LENGTHS.unpack_from(data)
        at = _LENGTHS.size
        if text > MAX_STATE_BYTES or at + text + cpu > len(data):
            raise FormatError("one states wrong lengths")
        state = load_json(data[at : at + text])
        return icount, state, data[at + text : at + text + cpu], data[at + text + cpu :]

    def give_up(self, why: str) -> None:
        """Use none of them from now on."""
        self.problem = f"the checkpoints in the trace are not used: {why}"
        self.icounts, self._chunks, self._last = [], [], None

    def forget(self) -> None:
        """Hold no memory for the next one."""
        self._last = None

    def load(self, number: int, room: Callable[[int], bool]) -> Snapshot | None:
        """Read a checkpoint and put the machine there, which shows that it fits the machine.

        room: is there memory for so many pages?  None, and the machine stays, if there is not.
        Raises `FormatError`; the machine is then in no valid state.
        """
        icount, state, cpu, table = self._read(self._chunks[number])
        if icount != self.icounts[number] or state.get("engine") != source_key():
            raise FormatError("one is of another engine")
        machine = self._machine
        time_ps = state.get("time_ps")
        try:
            parts = from_plain(state.get("parts"))
            _check_parts(machine, parts, icount)
            expected = len(save_cpu(machine.cpu))
            local = load_cpu(machine.cpu, cpu, expected, icount)
            if type(time_ps) is not int:
                raise FormatError("one states no time")
            ram = self._ram(table, room)
            if ram is None:
                return None
            snapshot = Snapshot(icount, time_ps, local, parts, ram)
            machine.restore(snapshot)
        except FormatError:
            raise
        except (*_DAMAGE, RecursionError) as error:
            raise FormatError(f"one does not fit this machine ({error!s:.120})") from None
        if machine.clock.icount != icount or machine.clock.now_ps != time_ps:
            raise FormatError("one states another time than its clock")
        return snapshot

    def _ram(self, table: bytes, room: Callable[[int], bool]) -> Ram | None:
        import numpy as np

        assert self._pages is not None
        pages = -(-self._machine.cpu.ram_bytes // PAGE)
        pages = -(-pages // GROUP) * GROUP
        if len(table) != 4 * pages:
            raise FormatError("one has pages for another size of memory")
        numbers = np.frombuffer(table, np.uint32)
        if int(numbers.max()) > self._pages.last:
            raise FormatError("one names a page that is not there")
        slots: list[int] = [ZERO] * pages
        wanted = numbers != 0
        last = self._last
        if last is not None:
            same = wanted & (last[0] == numbers)
            for n in np.flatnonzero(same).tolist():
                slots[n] = last[1].groups[n // GROUP][n % GROUP]
            wanted &= ~same
        unique, first = np.unique(numbers[wanted], return_inverse=True)
        if not room(int((unique > self._pages.first).sum())):
            return None
        named = self._pages.read(unique.astype(np.int64))
        for n, k in zip(np.flatnonzero(wanted).tolist(), first.tolist(), strict=True):
            slots[n] = named[k]
        groups = [tuple(slots[n : n + GROUP]) for n in range(0, pages, GROUP)]
        if last is not None:
            groups = [
                theirs if all(map(operator.is_, mine, theirs)) else mine
                for mine, theirs in zip(groups, last[1].groups, strict=True)
            ]
        ram = Ram(self._machine.pages, tuple(groups))
        self._last = numbers, ram
        return ram


def _check_parts(machine: Machine, parts: Any, icount: int) -> None:
    """What the machine itself takes without a look."""
    if not isinstance(parts, dict) or parts.keys() != {
        "clock", "pending", "inputs", "msrs", "devices",
    }:  # fmt: skip
        raise FormatError("one lacks parts of the machine")
    if not isinstance(parts["devices"], dict) or parts["devices"].keys() != machine.devices.keys():
        raise FormatError("one has other devices than the machine")
    match parts["pending"]:
        case (bool(), bool()):
            pass
        case _:
            raise FormatError("one has no valid interrupts")
    match parts["inputs"]:
        case (int(place), dict(fetched)) if 0 <= place < 1 << 40:
            if all(type(k) is str and type(v) is int and v >= 0 for k, v in fetched.items()):
                return
    raise FormatError("one has no valid place in the inputs")


__all__ = ["MAX_CHECKPOINTS", "Saver", "Stored", "from_plain", "to_plain"]
