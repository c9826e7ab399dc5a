"""The filter language: which accesses the log shows.

    device=ide0* and write and value&0x80 and count>1.2G

A term is a name, an operator and a value (`register=STATUS`, `value&0xf0=0x80`, `count<50%`), or
one of `write`, `read`, `pio`, `mmio`, `cfg`, or a bare pattern, which is looked for in device and
register. Terms are joined by `and`, `or`, `not` and parentheses; two terms side by side mean `and`.
Patterns have * and ?, and the case of letters does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from workbench.errors import UsageError

NUMBERS: Final = {
    "value": "the value read or written",
    "count": "instruction count: 1.2G, 3M, 50%",
    "offset": "offset in the device's window",
    "addr": "port, address, or configuration address",
    "size": "bytes of the access",
    "times": "how often a string instruction repeated it",
    "pc": "address of the instruction",
    "row": "number of the access in the log",
}
TEXTS: Final = {
    "device": "name of the device's window",
    "register": "name of the register",
    "fields": "the decoded fields",
    "function": "function of the guest",
    "kind": "pio, mmio or cfg",
    "request": "the request it belongs to, such as ide0/17",
}
FLAGS: Final = {
    "write": "only writes",
    "read": "only reads",
    "pio": "only ports",
    "mmio": "only memory",
    "cfg": "only PCI configuration",
}
WORDS: Final = ("and", "or", "not")
COMPARISONS: Final = ("=", "!=", "<", "<=", ">", ">=")
_ALIASES: Final = {"reg": "register", "fn": "function", "icount": "count", "dev": "device"}
_TOKEN: Final = re.compile(r"""\s+|(?P<op>!=|<=|>=|[=<>&()])|(?P<word>"[^"]*"|[^\s=<>&()!"]+)""")
_SUFFIXES: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
MOST_TERMS: Final = 200


class FilterError(UsageError):
    """A filter that makes no sense; `position` is where in the text."""

    def __init__(self, what: str, position: int) -> None:
        self.position = position
        super().__init__(f"{what} (at character {position + 1})")


@dataclass(frozen=True, slots=True)
class Number:
    """`name op value`, or with a mask `name & mask [op value]`; a bare mask asks for any bit."""

    name: str
    op: str
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """`name = pattern`; a name of "" looks in device and register."""

    name: str
    op: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Flag:
    """One of `FLAGS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """What the part does not match."""

    part: Node


@dataclass(frozen=True, slots=True)
class Join:
    """All parts (`and`) or any of them (`or`)."""

    op: str
    parts: tuple[Node, ...]


Node = Number | Pattern | Flag | Not | Join


def number(text: str, whole: int) -> int | None:
    """Read `0x80`, `1234`, `1.2G`, or `50%` of `whole`; None for what is no number."""
    text = text.replace(",", "").replace("_", "").lower()
    try:
        if text.startswith(("0x", "0b")):
            return int(text, 0)
        if text.endswith("%"):
            return int(float(text[:-1]) * whole / 100)
        if text[-1:] in _SUFFIXES:
            return int(float(text[:-1]) * _SUFFIXES[text[-1]])
        return int(text)
    except (ValueError, OverflowError):
        return None


def parse(text: str, end_icount: int) -> Node | None:
    """Read a filter; None for an empty one. Raises `FilterError`."""
    reader = _Reader(text, end_icount)
    if reader.at_end():
        return None
    node = reader.any_of()
    if not reader.at_end():
        raise FilterError(f"expected a term, not {reader.shown()}", reader.position())
    return node


class _Reader:
    def __init__(self, text: str, end_icount: int) -> None:
        self.end_icount = end_icount
        self.text = text
        self.tokens: list[tuple[str, int]] = []
        self.next = 0
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise FilterError(f"expected a filter, not {text[at]!r}", at)
            if not found.group().isspace():
                self.tokens.append((found.group(), at))
            at = found.end()
        if len(self.tokens) > 4 * MOST_TERMS:
            raise FilterError("expected a shorter filter", self.tokens[4 * MOST_TERMS][1])
        self.depth = 0

    def at_end(self) -> bool:
        return self.next >= len(self.tokens)

    def peek(self) -> str:
        return "" if self.at_end() else self.tokens[self.next][0]

    def take(self) -> str:
        token = self.peek()
        self.next += 1
        return token

    def position(self) -> int:
        return len(self.text) if self.at_end() else self.tokens[self.next][1]

    def shown(self) -> str:
        return "the end" if self.at_end() else repr(self.peek())

    def any_of(self) -> Node:
        parts = [self.all_of()]
        while self.peek().lower() == "or":
            self.take()
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else Join("or", tuple(parts))

    def all_of(self) -> Node:
        parts = [self.one()]
        while not self.at_end() and self.peek().lower() != "or" and self.peek() != ")":
            if self.peek().lower() == "and":
                self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else Join("and", tuple(parts))

    def one(self) -> Node:
        token = self.peek()
        if token.lower() == "not":
            self.take()
            self._deeper()
            part = self.one()
            self.depth -= 1
            return Not(part)
        if token == "(":
            self.take()
            self._deeper()
            node = self.any_of()
            if self.take() != ")":
                self.next -= 1
                raise FilterError(f"expected ')', not {self.shown()}", self.position())
            self.depth -= 1
            return node
        return self.term()

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > 50:
            raise FilterError("expected fewer levels of parentheses", self.position())

    def term(self) -> Node:
        at = self.position()
        if self.at_end() or self.peek() in (*COMPARISONS, "&", ")", "and", "or"):
            raise FilterError(f"expected a term, not {self.shown()}", at)
        word = self.take()
        name = _ALIASES.get(word.lower(), word.lower())
        operator = self.peek()
        if operator not in (*COMPARISONS, "&"):
            if name in FLAGS:
                return Flag(name)
            if name in NUMBERS or name in TEXTS:
                raise FilterError(f"expected an operator after {name}", self.position())
            return Pattern("", "=", _glob(word))
        self.take()
        if name in NUMBERS:
            return self._number(name, operator)
        if name not in TEXTS:
            names = ", ".join((*TEXTS, *NUMBERS))
            raise FilterError(f"expected one of {names}, not {word!r}", at)
        if operator not in ("=", "!="):
            raise FilterError(f"expected {name}= or {name}!=, not {name}{operator}", at)
        return Pattern(name, operator, _glob(self._text(name)))

    def _text(self, name: str) -> str:
        """A pattern, which may have operators in it: `fields=*SRST=1*`."""
        found = self._value(name)
        while not self.at_end() and self.peek() not in "()":
            token, at = self.tokens[self.next]
            before, start = self.tokens[self.next - 1]
            if start + len(before) != at:
                break
            found += token
            self.next += 1
        return found

    def _value(self, name: str) -> str:
        if self.at_end() or self.peek() in (*COMPARISONS, "&", "(", ")"):
            raise FilterError(f"expected a value for {name}, not {self.shown()}", self.position())
        return self.take()

    def _number(self, name: str, operator: str) -> Node:
        value = self._amount(name)
        if operator != "&":
            return Number(name, operator, value)
        if self.peek() in COMPARISONS:
            operator = self.take()
            return Number(name, operator, self._amount(name), mask=value)
        return Number(name, "!=", 0, mask=value)

    def _amount(self, name: str) -> int:
        at = self.position()
        text = self._value(name)
        value = number(text, self.end_icount)
        if value is None or not 0 <= value < 1 << 64:
            raise FilterError(f"expected a number for {name}, not {text!r}", at)
        return value


def _glob(text: str) -> str:
    return text.strip('"').lower()


def asks(node: Node, name: str) -> bool:
    """Has an expression a term about these names?"""
    match node:
        case Join(parts=parts):
            return any(asks(part, name) for part in parts)
        case Not(part=part):
            return asks(part, name)
        case Pattern():
            return node.name == name
    return False


def completions(text: str, names: Mapping[str, Iterable[str]]) -> list[tuple[str, int, str]]:
    """What may come next: (text, how far back it begins, what it is).

    `names` has known values for some of `TEXTS`: devices, registers, functions.
    """
    found = re.search(r"([a-z]+)\s*!?=\s*([^\s=<>&()!]*)$", text, re.IGNORECASE)
    if found is not None:
        name = _ALIASES.get(found[1].lower(), found[1].lower())
        typed = found[2].lower()
        values = sorted(v for v in names.get(name, ()) if typed in v.lower())[:200]
        return [(f'"{v}"' if " " in v else v, -len(found[2]), name) for v in values]
    word = re.search(r"[^\s=<>&()!]*$", text)
    typed = word[0].lower() if word else ""
    out = [(f"{n}=", -len(typed), what) for n, what in TEXTS.items() if n.startswith(typed)]
    out += [(n, -len(typed), what) for n, what in NUMBERS.items() if n.startswith(typed)]
    out += [(n, -len(typed), what) for n, what in FLAGS.items() if n.startswith(typed)]
    out += [(n, -len(typed), "") for n in WORDS if typed and n.startswith(typed)]
    return out
