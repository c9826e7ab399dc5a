"""What a replay has found out about a trace, kept in the cache under what was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from workbench import cache
from workbench.trace.container import compress
from workbench.trace.header import dump_json
from workbench.trace.reader import Trace


def name_of(kind: str, trace: Trace, asked: Mapping[str, Any]) -> str:
    """The name in the cache: of a kind, a recording by its header and end, and a question."""
    end = {} if trace.end is None else trace.end.to_json()
    what = [trace.header.to_json(), end, trace.last_mark.to_json(), asked]
    key = hashlib.sha256(b"\n".join(map(dump_json, what))).hexdigest()[:32]
    return f"{kind}-{key}.zst"


def load(name: str, most_bytes: int) -> bytes | None:
    """What is kept under a name; None if nothing is, if it is damaged or larger than that."""
    import zstandard

    packed = cache.fetch(name)
    if packed is None:
        return None
    try:
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=most_bytes)
    except zstandard.ZstdError:
        return None


def keep(name: str, data: bytes, most: int) -> None:
    """Keep it, and of its kind the `most` last used ones."""
    cache.store(name, compress(data), most)
