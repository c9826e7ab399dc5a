"""Which rows of the log a filter matches: block by block, in bounded memory.

A block's rows are narrowed down term by term, the cheap terms as arrays; names of registers are
only made for what is left. For each block the number of its matches is kept (`-1`: not looked
at yet), and the matches where they are few, so that a screen of rare ones is there at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import numpy as np

from workbench.trace.decode import register_names
from workbench.tui.language import Flag, Join, Node, Not, Number, Pattern
from workbench.tui.log import BLOCK, DECODED, AccessLog, Block

Rows = np.ndarray[Any, Any]
Names = Callable[[int], str]
_KEPT: Final = 64
FEW: Final = 256
"""Matches of a block that are kept for good: two bytes each."""
_COLUMNS: Final = {"count": "icount", "times": "count"}
"""What filters call otherwise than the table."""
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(slots=True)
class Context:
    """What the terms about names need: functions by PC, requests by device and count."""

    function: Names = hex
    request: Callable[[str, int], str] = lambda device, icount: ""


@dataclass(slots=True)
class Budget:
    """How many blocks may still be read and looked through for an answer."""

    left: int
    spent: bool = False
    """Was there no answer for want of it?"""
    at: int = -1
    """The block that was to be looked through then."""

    def take(self, number: int) -> bool:
        """May another block be looked through?"""
        self.spent |= self.left <= 0
        self.left -= 1
        if self.spent:
            self.at = number
        return not self.spent


def columns(node: Node) -> set[str]:
    """The columns of the log that an expression asks for."""
    match node:
        case Join(parts=parts):
            return set().union(*map(columns, parts))
        case Not(part=part):
            return columns(part)
        case Flag(name=name):
            return {"write" if name in ("read", "write") else "kind"}
        case Number(name="row"):
            return set()
        case Number(name=name):
            return {_COLUMNS.get(name, name)}
        case Pattern(name="device" | "kind" as name):
            return {name}
        case Pattern(name="function"):
            return {"pc"}
        case Pattern(name="request"):
            return {"device", "icount"}
    return set(DECODED)


def _cost(node: Node) -> int:
    match node:
        case Pattern(name=name):
            return 0 if name in ("device", "kind") else 2
        case Join(parts=parts):
            return max(map(_cost, parts))
        case Not(part=part):
            return _cost(part)
        case _:
            return 0


class Found(NamedTuple):
    """What was found in a block: how many rows match, and which in it if they are few."""

    number: int
    matching: int
    few: Rows | None


class Matches:
    """The rows that a filter matches; without a filter, all."""

    def __init__(self, log: AccessLog, node: Node | None, context: Context | None = None) -> None:
        self.log = log
        self.node = node
        self.context = context or Context()
        self.counts = np.full(log.blocks, -1, np.int32)
        self.center = 0
        """Block around which `scan` goes on: where the user is."""
        self._rows: OrderedDict[int, Rows] = OrderedDict()
        self._few: dict[int, Rows] = {}

    def grow(self) -> None:
        """The log has grown; its last block may have been a part of one."""
        last = max(len(self.counts) - 1, 0)
        more = np.full(self.log.blocks - last, -1, np.int32)
        self.counts = np.concatenate((self.counts[:last], more))
        self._rows.pop(last, None)
        self._few.pop(last, None)

    @property
    def known(self) -> int:
        """Matching rows found so far."""
        if self.node is None:
            return self.log.rows
        return int(np.maximum(self.counts, 0).sum())

    @property
    def complete(self) -> bool:
        """Has the whole log been looked at?"""
        return self.node is None or not (self.counts < 0).any()

    def rows(self, number: int) -> Rows:
        """The matching rows of a block, ascending."""
        found = self.held(number)
        if found is None:
            found = self._look(number, keep=True)
            self._rows[number] = found
            while len(self._rows) > _KEPT:
                self._rows.pop(next(iter(self._rows)), None)
        return found

    def held(self, number: int) -> Rows | None:
        """The matching rows of a block that has been looked through; None if it has to be."""
        first = number * BLOCK
        if self.node is None:
            return np.arange(first, min(first + BLOCK, self.log.rows))
        if self.counts[number] == 0:
            return np.arange(0)
        few = self._few.get(number)
        return self._rows.get(number) if few is None else few.astype(np.int64) + first

    def _look(self, number: int, keep: bool = False) -> Rows:
        found = self._evaluate(number, keep)
        if 0 < len(found) <= FEW:
            self._few[number] = (found - number * BLOCK).astype(np.uint16)
        self.counts[number] = len(found)
        return found

    def look(self, numbers: Iterable[int]) -> list[Found]:
        """Look through some blocks; gives for each how many match, and which if they are few."""
        found = []
        for number in numbers:
            self._look(number)
            found.append(Found(number, int(self.counts[number]), self._few.get(number)))
        return found

    def take(self, found: Iterable[Found]) -> None:
        """Learn what another one has found in the same log."""
        for number, count, few in found:
            if few is not None:
                self._few[number] = few
            self.counts[number] = count

    def scan(
        self,
        stopping: Callable[[float], bool],
        look: Callable[[list[int]], None] | None = None,
        at_a_time: int = 1,
    ) -> None:
        """Look at every block, those around `center` first; `stopping` is told the share done.

        `look` has some blocks looked through, which lie beside each other.
        """
        while self.node is not None:
            unknown = np.flatnonzero(self.counts < 0)
            if not len(unknown) or stopping(1 - len(unknown) / self.log.blocks):
                return
            place = int(np.searchsorted(unknown, self.center))
            near = unknown[max(place - 1, 0) : place + 1]
            first = int(min(near, key=lambda number: abs(number - self.center)))
            numbers = self.unknown(first, 1 if first >= self.center else -1, at_a_time)
            (look or self.look)(numbers)

    def unknown(self, first: int, way: int, most: int) -> list[int]:
        """Blocks from one on, that way, until one has been looked through."""
        if not self._is_unknown(first):
            return []
        last = first
        while len(range(first, last, way)) < most - 1 and self._is_unknown(last + way):
            last += way
        return list(range(first, last + way, way))

    def _is_unknown(self, number: int) -> bool:
        return 0 <= number < len(self.counts) and self.counts[number] < 0

    def _next(self, number: int, way: int) -> int | None:
        """This block or the next one, that way, which may have a match."""
        if not 0 <= number < len(self.counts):
            return None
        there = self.counts[number::way] != 0
        step = int(there.argmax())
        return number + way * step if there[step] else None

    def _within(self, number: int, budget: Budget | None) -> Rows | None:
        """The matches in a block; None if it must not be looked through for that."""
        found = self.held(number)
        if found is None and (budget is None or budget.take(number)):
            found = self.rows(number)
        return found

    def after(self, row: int, budget: Budget | None = None) -> int | None:
        """The next match after a row; None at the end, or when the budget did not do."""
        if self.node is None:
            return row + 1 if row + 1 < self.log.rows else None
        number = self._next(max(row + 1, 0) // BLOCK, 1)
        while number is not None:
            found = self._within(number, budget)
            if found is None:
                return None
            place = int(np.searchsorted(found, row, "right"))
            if place < len(found):
                return int(found[place])
            number = self._next(number + 1, 1)
        return None

    def before(self, row: int, budget: Budget | None = None) -> int | None:
        """The last match before a row; None like `after`."""
        if self.node is None:
            return min(row, self.log.rows) - 1 if row > 0 and self.log.rows else None
        number = self._next(min((row - 1) // BLOCK, self.log.blocks - 1), -1)
        while number is not None:
            found = self._within(number, budget)
            if found is None:
                return None
            place = int(np.searchsorted(found, row))
            if place > 0:
                return int(found[place - 1])
            number = self._next(number - 1, -1)
        return None

    # Evaluation.

    def _evaluate(self, number: int, keep: bool) -> Rows:
        block = self.log.block(number, keep)
        assert self.node is not None
        places = self._narrow(self.node, block, np.arange(len(block)))
        return places + block.first

    def _narrow(self, node: Node, block: Block, places: Rows) -> Rows:
        if not len(places):
            return places
        match node:
            case Join(op="and", parts=parts):
                for part in sorted(parts, key=_cost):
                    places = self._narrow(part, block, places)
                return places
            case Join(parts=parts):
                found = [self._narrow(part, block, places) for part in parts]
                return np.unique(np.concatenate(found))
            case Not(part=part):
                return np.setdiff1d(places, self._narrow(part, block, places))
            case Flag(name="write" | "read" as name):
                wanted = (block.numbers["write"][places] != 0) == (name == "write")
                return _those(places, wanted)
            case Flag(name=name):
                return self._by_code(block, "kind", block.kinds, places, "=", name)
            case Number():
                return _those(places, self._compare(node, block, places))
            case Pattern(name="device"):
                return self._by_code(block, "device", block.devices, places, node.op, node.pattern)
            case Pattern(name="kind"):
                return self._by_code(block, "kind", block.kinds, places, node.op, node.pattern)
            case Pattern():
                return self._by_name(node, block, places)

    def _compare(self, node: Number, block: Block, places: Rows) -> Any:
        if node.name == "row":
            values: Any = (places + block.first).astype(np.uint64)
        else:
            values = block.numbers[_COLUMNS.get(node.name, node.name)][places].astype(np.uint64)
        if node.mask is not None:
            values = values & np.uint64(node.mask)
        return _OPERATORS[node.op](values, np.uint64(node.value))

    def _by_code(
        self, block: Block, column: str, names: list[str], places: Rows, op: str, pattern: str
    ) -> Rows:
        wanted = np.array(
            [fnmatchcase(name.lower(), pattern) == (op == "=") for name in names] or [False]
        )
        return _those(places, wanted[block.numbers[column][places]])

    def _by_name(self, node: Pattern, block: Block, places: Rows) -> Rows:
        pattern, wanted = node.pattern, node.op == "="
        known: dict[str, bool] = {}

        def fits(*names: str) -> bool:
            for name in names:
                found = known.get(name)
                if found is None:
                    found = known[name] = fnmatchcase(name.lower(), pattern)
                if found:
                    return wanted
            return not wanted

        keep: list[bool] = []
        if node.name in ("register", "fields", ""):
            registers = self.log.decode(block, places)
            for place in places.tolist():
                register = registers[place]
                assert register is not None
                if node.name == "fields":
                    keep.append(fits(register.meaning))
                elif node.name == "register":
                    keep.append(fits(*register_names(register.name)))
                else:
                    keep.append(fits(block.device(place), *register_names(register.name)))
        elif node.name == "function":
            function = self.context.function
            for pc in block.numbers["pc"][places].tolist():
                name = function(pc)
                keep.append(fits(name, name.partition("+")[0].partition(" ")[0]))
        else:
            counts = block.numbers["icount"][places].tolist()
            keep = [
                fits(self.context.request(block.device(place), icount))
                for place, icount in zip(places.tolist(), counts, strict=True)
            ]
        return _those(places, np.array(keep, np.bool_))


def _those(places: Rows, wanted: Any) -> Rows:
    found: Rows = places[wanted]
    return found
