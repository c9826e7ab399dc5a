"""Compile the semantics to stencils and the helpers to a linked image; keep both in a cache.

The cache is keyed by the source of this package and LLVM's version. Code is made for x86-64-v2, so
that it is the same on every host.  After the first time nothing of LLVM is loaded.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench import cache

CPU_NAME = "x86-64-v2"
FORMAT = 1
CHUNK = 220


@dataclass
class Image:
    """Everything that generated code is made of, without addresses.

    blob: helper code and all constants, to be placed below 2 GiB; fixups in it as (offset, kind,
    symbol number, addend); symbols: ("blob", offset) or ("extern", name); stencil arrays as
    translate.py wants them, whose fixed symbols are numbered from FIXED_INDEX.
    """

    blob: bytes
    fixups: list[tuple[int, int, int, int]]
    symbols: list[tuple[str, str | int]]
    functions: dict[str, int]
    stencil_code: bytes
    stencils: bytes
    relocs: bytes
    entries: bytes
    optable: bytes
    eatab: bytes
    system_names: list[str]
    names: list[str]


KEPT_IMAGES = 16
BYTES_FIELDS = ("blob", "stencil_code", "stencils", "relocs", "entries", "optable", "eatab")


@functools.cache
def source_key() -> str:
    """Hash of what the image depends on; read once, as the modules are."""
    import importlib.metadata

    digest = hashlib.sha256(
        f"{FORMAT} {CPU_NAME} {importlib.metadata.version('llvmlite')}".encode()
    )
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def image_name() -> str:
    """What the image is called in the cache."""
    return f"engine-{source_key()}.bin"


def load_image(progress: Callable[[int, int], None] | None = None) -> Image:
    """The image from the cache, or compiled now (`progress` is told steps done and in all)."""
    name = image_name()
    kept = cache.fetch(name)
    if kept is not None:
        try:
            return unpack_image(kept)
        except (ValueError, KeyError, struct.error):
            pass  # damaged: made again
    image = compile_image(progress)
    cache.store(name, pack_image(image), KEPT_IMAGES)
    return image


def pack_image(image: Image) -> bytes:
    """An image as bytes: length and JSON of the small parts, then the byte strings, then a hash."""
    head = {
        "fixups": image.fixups,
        "symbols": image.symbols,
        "functions": image.functions,
        "system_names": image.system_names,
        "names": image.names,
        "sizes": {f: len(getattr(image, f)) for f in BYTES_FIELDS},
    }
    text = json.dumps(head).encode()
    body = struct.pack("<I", len(text)) + text + b"".join(getattr(image, f) for f in BYTES_FIELDS)
    return body + hashlib.blake2b(body, digest_size=16).digest()


def unpack_image(data: bytes) -> Image:
    """The reverse of `pack_image`; ValueError for anything broken."""
    body, check = data[:-16], data[-16:]
    if hashlib.blake2b(body, digest_size=16).digest() != check:
        raise ValueError("the cached engine image is damaged")
    (n,) = struct.unpack_from("<I", body)
    head = json.loads(body[4 : 4 + n])
    at = 4 + n
    parts = {}
    for f in BYTES_FIELDS:
        parts[f] = body[at : at + head["sizes"][f]]
        at += head["sizes"][f]
    return Image(
        fixups=[(a, b, c, d) for a, b, c, d in head["fixups"]],
        symbols=[(k, v) for k, v in head["symbols"]],
        functions=head["functions"],
        system_names=head["system_names"],
        names=head["names"],
        **parts,
    )


def compile_text(text: str, stencils: bool, features: str = "") -> bytes:
    """LLVM module text to an object file; stencils are tidied on the way (see peephole.py)."""
    import llvmlite.binding as llvm

    from workbench.core.peephole import tidy

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    module = llvm.parse_assembly(text)
    module.verify()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=CPU_NAME, features=features, opt=2, reloc="static", codemodel="small"
    )
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    llvm.create_pass_builder(target, options).getModulePassManager().run(
        module, llvm.create_pass_builder(target, options)
    )
    if not stencils:
        return bytes(target.emit_object(module))
    lines = tidy(target.emit_assembly(module)).split("\n")
    quoted = "\n".join(
        'module asm "' + x.replace("\\", "\\5C").replace('"', "\\22").replace("\t", " ") + '"'
        for x in lines
    )
    assembled = llvm.parse_assembly(f'target triple = "{target.triple}"\n{quoted}\n')
    return bytes(target.emit_object(assembled))


def import_semantics() -> None:
    """Import every semantics module, so that OPS and ROWS are complete."""
    for path in sorted(Path(__file__).parent.glob("sem_*.py")):
        importlib.import_module(f"workbench.core.{path.stem}")


def compile_image(progress: Callable[[int, int], None] | None = None) -> Image:
    """Compile everything (about half a minute on two cores)."""
    import multiprocessing

    from workbench.core import runloop, sem_flow
    from workbench.core.lang import Fn, Module
    from workbench.core.linker import link
    from workbench.core.opcodes import ROWS
    from workbench.core.optable import keys_of_rows
    from workbench.core.stencil import SYSTEM_NAMES, StencilKey, emit_stencil
    from workbench.core.tables import build_tables

    import_semantics()
    keys: list[StencilKey] = keys_of_rows(ROWS)
    seen = set(keys)
    extra_ops = [StencilKey("sse_check", "", 8), StencilKey("mmx_check", "", 8)]
    for k in [*sem_flow.cond_keys(), *sem_flow.fused_keys(), *extra_ops]:
        if k not in seen:
            seen.add(k)
            keys.append(k)
    wanted: dict[str, Fn] = {f.name: f for f in runloop.HELPERS}
    texts: list[str] = []
    for start in range(0, len(keys), CHUNK):
        module = Module()
        module.extern_all = True
        for key in keys[start : start + CHUNK]:
            emit_stencil(module, key)
        wanted.update(module.wanted)
        texts.append(module.text())
    specials = Module()
    specials.extern_all = True
    special_symbols = runloop.emit_specials(specials)
    wanted.update(specials.wanted)
    texts.append(specials.text())
    helpers = Module()
    for f in wanted.values():
        helpers.compile(f)
    runloop.emit_miss_common(helpers)
    while helpers.queue:
        helpers.compile(helpers.queue[-1])
    texts.insert(0, helpers.text())
    objects: list[bytes] = [b""] * len(texts)
    context = multiprocessing.get_context("fork")
    with context.Pool(min(os.cpu_count() or 1, 8)) as pool:
        for done, (i, blob) in enumerate(
            pool.imap_unordered(_compile_numbered, list(enumerate(texts)))
        ):
            objects[i] = blob
            if progress:
                progress(done + 1, len(texts))
    linked = link(objects[0], objects[1:], [k.symbol for k in keys], special_symbols)
    tables = build_tables(ROWS, keys, linked)
    return Image(
        blob=linked.blob,
        fixups=linked.fixups,
        symbols=linked.symbols,
        functions=linked.functions,
        stencil_code=linked.stencil_code,
        stencils=linked.stencils,
        relocs=linked.relocs,
        entries=tables.entries,
        optable=tables.optable,
        eatab=tables.eatab,
        system_names=list(SYSTEM_NAMES),
        names=linked.names,
    )


def _compile_numbered(job: tuple[int, str]) -> tuple[int, bytes]:
    return job[0], compile_text(job[1], stencils=job[0] > 0)
