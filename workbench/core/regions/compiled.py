"""A compiled region, and how it is kept in the cache."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from workbench.core.build import source_key
from workbench.core.regions.shape import Block

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Compiled:
    """Code and its constants, and what is to be fixed up in them: (offset, kind as in `Image`,
    symbol or "" for the code itself, addend); `entry` is where it starts.
    """

    code: bytes
    entry: int
    fixups: list[tuple[int, int, str, int]]


@functools.cache
def _sources() -> str:
    """What compiled code depends on besides the guest's."""
    digest = hashlib.sha256(source_key().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def name_of(blocks: list[Block]) -> str:
    """What a region is called in the cache."""
    text = _sources() + repr(blocks)
    return f"region-{hashlib.sha256(text.encode()).hexdigest()[:32]}.bin"


def pack(compiled: Compiled) -> bytes:
    """A region as bytes: a hash, the length of the JSON text of the small parts, that, the code."""
    head = json.dumps([compiled.entry, compiled.fixups]).encode()
    body = struct.pack("<I", len(head)) + head + compiled.code
    return hashlib.blake2b(body, digest_size=16).digest() + body


def unpack(data: bytes) -> Compiled | None:
    """The reverse of `pack`; None for anything broken."""
    check, body = data[:16], data[16:]
    if hashlib.blake2b(body, digest_size=16).digest() != check:
        return None
    (size,) = struct.unpack_from("<I", body)
    entry, fixups = json.loads(body[4 : 4 + size])
    return Compiled(body[4 + size :], entry, [(a, b, c, d) for a, b, c, d in fixups])
