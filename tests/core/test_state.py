"""The state codec: round trips, plainness, and its refusals."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from workbench.core.state import StateError, decode, encode, sized


class Phase(enum.Enum):
    IDLE = "idle"
    BUSY = "busy"


@dataclass(slots=True)
class Inner:
    a: int = 1
    b: bool = False


@dataclass(slots=True)
class Outer:
    number: int = 0
    flag: bool = False
    text: str = ""
    raw: bytes = b""
    buffer: bytearray = field(default_factory=bytearray)
    items: list[int] = field(default_factory=list)
    pair: tuple[int, str] = (0, "")
    many: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)
    maybe: int | None = None
    table: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int | None] = field(default_factory=dict)
    phase: Phase = Phase.IDLE
    slots: list[int] = sized(3)  # noqa: RUF009  (gives a field)


FULL = Outer(
    number=1 << 70,
    flag=True,
    text="é",
    raw=b"\x00\xff",
    buffer=bytearray(b"ab"),
    items=[1, -2],
    pair=(3, "x"),
    many=(4, 5),
    inner=Inner(9, True),
    inners=[Inner(2)],
    maybe=6,
    table={7: b"q", -1: b""},
    names={"n": None},
    phase=Phase.BUSY,
    slots=[1, 2, 3],
)


@pytest.mark.parametrize("state", [Outer(), FULL], ids=["default", "full"])
def test_round_trip_through_json(state: Outer) -> None:
    data = json.loads(json.dumps(encode(state, "outer", 3)))
    back = decode(Outer, data, "outer", 3)
    assert back == state
    assert encode(back, "outer", 3) == data
    assert type(back.buffer) is bytearray


def test_decoded_state_shares_nothing() -> None:
    data = encode(FULL, "outer")
    decode(Outer, data, "outer").items.append(1)
    assert encode(FULL, "outer") == data


def change(**fields: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(encode(FULL, "outer")))
    data["fields"].update(fields)
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "outer: expected a dict, not 7"),
        ({"kind": "outer"}, "outer: expected the keys kind, version, fields, not ['kind']"),
        (change() | {"kind": "x"}, "outer: expected state of kind 'outer', not 'x'"),
        (change() | {"version": 2}, "outer: expected version 1, not 2"),
        (change() | {"version": True}, "outer: expected version 1, not True"),
        (change(bogus=1), "outer: unknown field 'bogus'"),
        (change(number=True), "outer.number: expected int, not True"),
        (change(number=1.0), "outer.number: expected int, not 1.0"),
        (change(flag=1), "outer.flag: expected bool, not 1"),
        (change(raw="zz"), "outer.raw: expected a hexadecimal string, not 'zz'"),
        (change(raw=[1]), "outer.raw: expected a hexadecimal string, not [1]"),
        (change(items=[1, "2"]), "outer.items[1]: expected int, not '2'"),
        (change(items="12"), "outer.items: expected a list, not '12'"),
        (change(pair=[1]), "outer.pair: expected a list of 2, not [1]"),
        (change(inner={"a": 1}), "outer.inner: field 'b' is missing"),
        (change(inners=[5]), "outer.inners[0]: expected a dict, not 5"),
        (change(maybe="x"), "outer.maybe: expected int, not 'x'"),
        (change(table={"x": ""}), "outer.table: expected a key of type int as a string, not 'x'"),
        (change(table={"07": ""}), "outer.table: expected a key of type int as a string, not '07'"),
        (change(phase="gone"), "outer.phase: expected a value of Phase, not 'gone'"),
        (change(slots=[1]), "outer.slots: expected 3 items, not 1"),
    ],
)
def test_refusals(data: object, message: str) -> None:
    with pytest.raises(StateError) as error:
        decode(Outer, data, "outer")
    assert str(error.value) == message


def test_missing_field() -> None:
    data = change()
    del data["fields"]["maybe"]
    with pytest.raises(StateError, match="outer: field 'maybe' is missing"):
        decode(Outer, data, "outer")


def test_validation_of_the_class_is_a_state_error() -> None:
    @dataclass(slots=True)
    class Small:
        n: int = 0

        def __post_init__(self) -> None:
            if self.n > 9:
                raise ValueError(f"expected n <= 9, not {self.n!r}")

    # local classes: annotations resolve because int is a builtin
    with pytest.raises(StateError, match="small: expected n <= 9, not 10"):
        decode(Small, {"kind": "small", "version": 1, "fields": {"n": 10}}, "small")


def test_unknown_type_is_our_fault() -> None:
    @dataclass(slots=True)
    class Odd:
        s: set[int] = field(default_factory=set)

    with pytest.raises(TypeError, match="state: no codec for a field of type set"):
        encode(Odd(), "odd")
