"""One codec for the state of devices: dataclasses to plain data and back.

`encode` gives `{"kind": ..., "version": ..., "fields": {...}}` made of dict, list, int, bool, str
and None only, so that JSON, CBOR and MessagePack can all hold it; bytes are hexadecimal strings.
The types in the annotations rule: `decode` accepts just what `encode` of the same class can give.
Everything else is a `StateError` that says where: snapshots are untrusted input.

Field types: int, bool, str, float, bytes, bytearray, list[T], tuple[T, ...], tuple[A, B],
dict[str, T], dict[int, T], Enum (by value), nested dataclasses, and `T | None`. `sized(n)`
declares a list or bytearray of fixed length.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from workbench.errors import FormatError

__all__ = ["MAX_ITEMS", "StateError", "decode", "encode", "sized"]

T = TypeVar("T")
MAX_ITEMS = 1 << 24
_Encoder = Callable[[Any], Any]
_Decoder = Callable[[Any, str], Any]


class StateError(FormatError, ValueError):
    """Saved state that does not fit the class it is meant for."""


def sized(length: int, value: int = 0) -> Any:
    """Field of type list[int] with `length` items; another length is an error on restore."""
    return dataclasses.field(default_factory=lambda: [value] * length, metadata={"length": length})


def encode(state: object, kind: str, version: int = 1) -> dict[str, Any]:
    """A dataclass instance as plain data, with its kind and version."""
    return {"kind": kind, "version": version, "fields": _codec_of(type(state))[0](state)}


def decode(cls: type[T], data: object, kind: str, version: int = 1) -> T:
    """The instance that `encode` has saved. Raises StateError for a wrong kind, version, field or
    type.
    """
    if not isinstance(data, dict):
        raise StateError(f"{kind}: expected a dict, not {data!r:.80}")
    if data.keys() != {"kind", "version", "fields"}:
        raise StateError(
            f"{kind}: expected the keys kind, version, fields, not {sorted(map(str, data))!r:.200}"
        )
    if data["kind"] != kind:
        raise StateError(f"{kind}: expected state of kind {kind!r}, not {data['kind']!r:.80}")
    if data["version"] != version or isinstance(data["version"], bool):
        raise StateError(f"{kind}: expected version {version}, not {data['version']!r:.80}")
    result: T = _codec_of(cls)[1](data["fields"], kind)
    return result


def _codec_of(cls: Any) -> tuple[_Encoder, _Decoder]:
    return _codec(cls)


def _same(value: Any) -> Any:
    return value


def _scalar(kind: type) -> tuple[_Encoder, _Decoder]:
    def check(value: Any, where: str) -> Any:
        if type(value) is not kind:
            raise StateError(f"{where}: expected {kind.__name__}, not {value!r:.80}")
        return value

    return _same, check


def _binary(kind: type) -> tuple[_Encoder, _Decoder]:
    def check(value: Any, where: str) -> Any:
        if type(value) is not str:
            raise StateError(f"{where}: expected a hexadecimal string, not {value!r:.80}")
        if len(value) > 2 * MAX_ITEMS:
            raise StateError(f"{where}: expected at most {MAX_ITEMS} bytes, not {len(value) // 2}")
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raise StateError(f"{where}: expected a hexadecimal string, not {value!r:.80}") from None
        return kind(raw)

    return bytes.hex if kind is bytes else bytearray.hex, check


@functools.cache
def _codec(tp: Any) -> tuple[_Encoder, _Decoder]:
    """Encoder and decoder of a type; made once for each."""
    if tp in (int, bool, str, float):
        return _scalar(tp)
    if tp in (bytes, bytearray):
        return _binary(tp)
    if isinstance(tp, type) and dataclasses.is_dataclass(tp):
        return _record(tp)
    if isinstance(tp, type) and issubclass(tp, enum.Enum):
        return _enum(tp)
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin is list:
        return _sequence(args[0], list)
    if origin is tuple:
        return _sequence(args[0], tuple) if args[-1] is ... else _fixed(args)
    if origin is dict and args[0] in (str, int):
        return _mapping(args[0], args[1])
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and type(None) in args:
        return _optional(args[0] if args[1] is type(None) else args[1])
    raise TypeError(f"state: no codec for a field of type {tp!r}")


def _record(cls: type) -> tuple[_Encoder, _Decoder]:
    hints = typing.get_type_hints(cls)
    items = [f for f in dataclasses.fields(cls) if f.init]
    codecs = {f.name: _codec(hints[f.name]) for f in items}
    lengths = {f.name: f.metadata["length"] for f in items if "length" in f.metadata}
    plain = {n for n, (enc, _) in codecs.items() if enc is _same}

    def enc(value: Any) -> dict[str, Any]:
        return {
            name: getattr(value, name) if name in plain else codec[0](getattr(value, name))
            for name, codec in codecs.items()
        }

    def dec(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise StateError(f"{where}: expected a dict, not {value!r:.80}")
        missing = [n for n in codecs if n not in value]
        if missing:
            raise StateError(f"{where}: field {missing[0]!r} is missing")
        unknown = [n for n in value if n not in codecs]
        if unknown:
            raise StateError(f"{where}: unknown field {unknown[0]!r:.80}")
        result = {name: codec[1](value[name], f"{where}.{name}") for name, codec in codecs.items()}
        for name, length in lengths.items():
            if len(result[name]) != length:
                raise StateError(
                    f"{where}.{name}: expected {length} items, not {len(result[name])}"
                )
        try:
            return cls(**result)
        except ValueError as error:  # from __post_init__
            raise StateError(f"{where}: {error}") from None

    return enc, dec


def _enum(cls: type[enum.Enum]) -> tuple[_Encoder, _Decoder]:
    def dec(value: Any, where: str) -> Any:
        for member in cls:
            if member.value == value and type(value) in (int, str):
                return member
        raise StateError(f"{where}: expected a value of {cls.__name__}, not {value!r:.80}")

    return lambda member: member.value, dec


def _sequence(item: Any, make: type) -> tuple[_Encoder, _Decoder]:
    enc_item, dec_item = _codec(item)

    def enc(value: Any) -> list[Any]:
        return list(value) if enc_item is _same else [enc_item(v) for v in value]

    def dec(value: Any, where: str) -> Any:
        if type(value) not in (list, tuple):
            raise StateError(f"{where}: expected a list, not {value!r:.80}")
        if len(value) > MAX_ITEMS:
            raise StateError(f"{where}: expected at most {MAX_ITEMS} items, not {len(value)}")
        return make(dec_item(v, f"{where}[{i}]") for i, v in enumerate(value))

    return enc, dec


def _fixed(args: tuple[Any, ...]) -> tuple[_Encoder, _Decoder]:
    codecs = [_codec(a) for a in args]

    def enc(value: Any) -> list[Any]:
        return [c[0](v) for c, v in zip(codecs, value, strict=True)]

    def dec(value: Any, where: str) -> Any:
        if type(value) not in (list, tuple) or len(value) != len(codecs):
            raise StateError(f"{where}: expected a list of {len(codecs)}, not {value!r:.80}")
        pairs = zip(codecs, value, strict=True)
        return tuple(c[1](v, f"{where}[{i}]") for i, (c, v) in enumerate(pairs))

    return enc, dec


def _mapping(key: type, item: Any) -> tuple[_Encoder, _Decoder]:
    """Keys are strings in the stored form (JSON knows no others), in sorted order."""
    enc_item, dec_item = _codec(item)

    def enc(value: Any) -> dict[str, Any]:
        return {str(k): enc_item(value[k]) for k in sorted(value)}

    def dec(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            raise StateError(f"{where}: expected a dict, not {value!r:.80}")
        result = {}
        for k, v in value.items():
            if type(k) is not str or (key is int and str(_int_or_none(k)) != k):
                raise StateError(
                    f"{where}: expected a key of type {key.__name__} as a string, not {k!r:.80}"
                )
            result[key(k)] = dec_item(v, f"{where}[{k}]")
        return result

    return enc, dec


def _int_or_none(text: str) -> int | None:
    try:
        return int(text) if len(text) < 32 else None
    except ValueError:
        return None


def _optional(item: Any) -> tuple[_Encoder, _Decoder]:
    enc_item, dec_item = _codec(item)

    def enc(value: Any) -> Any:
        return None if value is None else enc_item(value)

    def dec(value: Any, where: str) -> Any:
        return None if value is None else dec_item(value, where)

    return enc, dec
