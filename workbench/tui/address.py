"""Addresses as they are typed: 0x1000, a register, a function, or a sum of them (rsp+0x40)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.tui import language

if TYPE_CHECKING:
    from workbench.tui.session import Session


def number(session: Session, text: str) -> int:
    """What an address is where the machine stands; raises `UsageError`."""
    total, sign = 0, 1
    for part in re.split(r"([+-])", text):
        if part in ("+", "-"):
            sign = 1 if part == "+" else -1
        else:
            total += sign * _term(session, part)
    return total & 0xFFFF_FFFF_FFFF_FFFF


def moves(session: Session, text: str) -> bool:
    """Is there a register in it, so that it is another one somewhere else?"""
    moment = session.moment
    known = () if moment is None else moment.registers
    return any(_register(part) in known for part in re.split(r"[+-]", text))


def _register(text: str) -> str:
    return text.lstrip("$").lower()


def _term(session: Session, text: str) -> int:
    moment, table = session.moment, session.symbols
    name = _register(text)
    if moment is not None and name in moment.registers:
        return moment.registers[name]
    found = language.number(text, session.end_icount)
    if found is None and table is not None:
        found = table.address(text)
    if found is None:
        raise UsageError(f"expected a number, a register or a function, not {text!r}")
    return found
