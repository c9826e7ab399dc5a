"""Compiles regions in a process of its own, beside the guest.

Requests come on standard input, answers go to standard output, each a length and a pickle. A region
that cannot be compiled is answered with None.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import BinaryIO

from workbench import cache
from workbench.core import elf
from workbench.core.linker import KINDS
from workbench.core.regions.compiled import KEPT, Compiled, pack
from workbench.core.regions.shape import Block
from workbench.core.regions.text import SYMBOL, module_text

FEATURES = "-fast-shld-rotate"  # a rotate by SHLD is slow on some processors


def compile_region(blocks: list[Block]) -> Compiled:
    """Compile a region; raises what the compiler raises."""
    from workbench.core.build import compile_text

    sections, symbols = elf.parse_object(compile_text(module_text(blocks), False, FEATURES))
    code = bytearray()
    places: dict[int, int] = {}
    for i, section in sections.items():
        if not section.name.startswith(".eh_frame") and section.data:
            code += bytes(-len(code) % max(section.align, 16))
            places[i] = len(code)
            code += section.data
    fixups: list[tuple[int, int, str, int]] = []
    for i, at in places.items():
        for where, kind, n, addend in sections[i].relocs:
            target = symbols[n]
            if target.section is not None:
                symbol, addend = "", addend + places[target.section] + target.value
            else:
                symbol = target.name
            fixups.append((at + where, KINDS[kind], symbol, addend))
    entry = next(places[s.section] + s.value for s in symbols if s.name == SYMBOL and s.section)
    return Compiled(bytes(code), entry, fixups)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    from workbench.core.build import import_semantics

    import_semantics()
    while len(head := source.read(4)) == 4:
        request = source.read(struct.unpack("<I", head)[0])
        answer: Compiled | None = None
        try:
            number, name, blocks = pickle.loads(request)  # noqa: S301 (from our own process)
            answer = compile_region(blocks)
            cache.store(name, pack(answer), KEPT)
        except Exception as error:
            if os.environ.get("WORKBENCH_REGIONS") == "debug":
                print(f"region: {type(error).__name__}: {error}", file=sys.stderr)
        data = pickle.dumps((number, name, answer))
        try:
            sink.write(struct.pack("<I", len(data)) + data)
            sink.flush()
        except BrokenPipeError:  # the guest has ended; the cache has what was begun
            return


def main() -> None:
    """The process: ``python -c`` with a call of this."""
    os.nice(5)
    serve(sys.stdin.buffer, sys.stdout.buffer)
