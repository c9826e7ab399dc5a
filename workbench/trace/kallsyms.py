"""Linux's own symbol table, found in guest memory: kallsyms of the kernel and of its modules.

Nothing but the memory is needed. The token table of kallsyms has a shape that nothing else has; the
other tables lie around it, in one order before Linux 6.4 and in another since. All sizes are found
by checking the tables against each other. Addresses come out as the running kernel uses them, since
the relative base was relocated with the kernel (KASLR). A 32-bit kernel has the same tables with
smaller words, which `Word` describes. Layout: scripts/kallsyms.c and
include/linux/module.h of Linux 6.1; memory that is no such kernel gives no symbols, never an error.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from workbench.core.pagewalk import Paging

Symbol = tuple[int, str, str]
"""Address, type letter as `nm` writes it, name."""

TOKENS: Final = 256
_DIGITS: Final = b"".join(b"%d\0" % n for n in range(10))
_MAX_SYMBOLS: Final = 1 << 21
_MAX_MODULES: Final = 1024
_MAX_MODULE_SYMBOLS: Final = 1 << 17
_STEP_BYTES: Final = 16 << 20
_WINDOW_BYTES: Final = 32 << 20
_PAGE: Final = 0x1000
_MODULE_BYTES: Final = 0x600
_SHN_UNDEF: Final = 0
_STT_LETTERS: Final = {0: "t", 1: "d", 2: "t"}
_MOST_STATE: Final = 3  # MODULE_STATE_UNFORMED
_HIT_BYTES: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class Word:
    """What depends on the size of the kernel's pointers.

    `start`: the lowest address that its symbols have; `list_at`, `name_at`, `name_bytes`: places in
    `struct module`; `kallsyms`: a pointer to `struct mod_kallsyms`, and that structure behind it;
    `symbol`: an ELF symbol.
    """

    size: int
    start: int
    list_at: int
    name_at: int
    name_bytes: int
    kallsyms: struct.Struct
    symbol: struct.Struct

    def align(self, value: int) -> int:
        """Round up to a whole number of words, as the tables are."""
        return value + self.size - 1 & -self.size


WORD64: Final = Word(
    8, 1 << 63, 8, 24, 56, struct.Struct("<QQI4xQ"), struct.Struct("<IBBHQQ")
)  # name, info, other, shndx, value, size
WORD32: Final = Word(
    4, 1 << 30, 4, 12, 60, struct.Struct("<IIII"), struct.Struct("<IIIBBH")
)  # name, value, size, info, other, shndx
WORDS: Final = (WORD64, WORD32)


class MemoryLike(Protocol):
    """Guest-physical memory."""

    size: int

    def read(self, gpa: int, n: int) -> bytes:
        """Read bytes; what is not RAM reads as 0xFF."""


@dataclass(frozen=True, slots=True)
class ModuleSymbols:
    """The symbols of one module."""

    name: str
    symbols: list[Symbol]


def kernel_symbols(memory: MemoryLike, ranges: list[tuple[int, int]]) -> list[Symbol]:
    """Find the kernel's symbols in physical `ranges` of (start, bytes); empty if there are none."""
    for hit in _find(memory, ranges, _DIGITS):
        near = max(_start_of(ranges, hit), (hit - _HIT_BYTES) & -_PAGE)
        piece = memory.read(near, 2 * _HIT_BYTES)
        words = [w for w in WORDS if _Tables(piece, hit - near, w).tokens() is not None]
        if not words:
            continue
        low = max(_start_of(ranges, hit), (hit - _WINDOW_BYTES) & -_PAGE)
        window = memory.read(low, min(2 * _WINDOW_BYTES, _end_of(ranges, hit) - low))
        for word in words:
            found = _Tables(window, hit - low, word).symbols()
            if found:
                return found
    return []


def _find(memory: MemoryLike, ranges: list[tuple[int, int]], what: bytes) -> Iterator[int]:
    for start, length in ranges:
        for at in range(start, start + length, _STEP_BYTES):
            data = memory.read(at, min(_STEP_BYTES + len(what), start + length - at))
            place = data.find(what)
            while place >= 0:
                yield at + place
                place = data.find(what, place + 1)


def _start_of(ranges: list[tuple[int, int]], gpa: int) -> int:
    return next(start for start, length in ranges if start <= gpa < start + length)


def _end_of(ranges: list[tuple[int, int]], gpa: int) -> int:
    return next(start + length for start, length in ranges if start <= gpa < start + length)


class _Tables:
    """The tables around the digits of a token table, which are tokens 48 to 57."""

    def __init__(self, data: bytes, digits: int, word: Word) -> None:
        self._data = data
        self._digits = digits
        self._word = word

    def symbols(self) -> list[Symbol]:
        """All symbols; empty when this is no kallsyms."""
        tokens = self.tokens()
        if tokens is None:
            return []
        table, after, texts = tokens
        index = self._word.align(after)
        if not self._index_fits(index, texts):
            return []
        for markers, count in self._markers(table):
            for at in self._counts(markers, count):
                total = self._u32(at)
                names = self._names(at + self._word.size, total, markers, texts)
                if names is None:
                    continue
                addresses = self._old_addresses(at, total) or self._new_addresses(index, total)
                if addresses is not None:
                    return [(a, n[:1], n[1:]) for a, n in zip(addresses, names, strict=True)]
        return []

    def _u32(self, at: int) -> int:
        return int.from_bytes(self._data[at : at + 4], "little")

    def tokens(self) -> tuple[int, int, list[bytes]] | None:
        """Start and end of the token table, and the tokens; None when it is none."""
        data, at = self._data, self._digits
        for _ in range(ord("0")):  # the tokens before "0", each ends with 0
            at = data.rfind(b"\0", max(0, at - 64), at - 1) + 1
            if at <= 0:
                return None
        start = at
        if start % self._word.size:
            return None
        texts = []
        for _ in range(TOKENS):
            end = data.find(b"\0", at, at + 64)
            if end < 0:
                return None
            texts.append(data[at:end])
            at = end + 1
        return start, at, texts

    def _index_fits(self, index: int, texts: list[bytes]) -> bool:
        raw = self._data[index : index + 2 * TOKENS]
        if len(raw) < 2 * TOKENS:
            return False
        at = 0
        for found, text in zip(struct.unpack(f"<{TOKENS}H", raw), texts, strict=True):
            if found != at:
                return False
            at += len(text) + 1
        return True

    def _markers(self, table: int) -> Iterator[tuple[int, int]]:
        """Where the markers may begin, and how many there are: offsets of each 256th name.

        They end at the token table, or with Linux 6.2 and its stable relatives at a table of three
        bytes for each symbol, which ends there.
        """
        word = self._word
        for count in range(2, _MAX_SYMBOLS // 256):
            start = table - word.align(4 * count)
            if self._rises(start, count):
                yield start, count
            first = 3 * 256 * (count - 1) & -word.size
            for gap in range(first, 3 * 256 * count + word.size, word.size):
                start = table - gap - word.align(4 * count)
                if start < 0:
                    return
                if self._rises(start, count):
                    yield start, count

    def _rises(self, start: int, count: int) -> bool:
        data = self._data
        if start < 0 or data[start : start + 4] != b"\0\0\0\0":
            return False
        if not 512 <= self._u32(start + 4) <= 256 * 520:
            return False
        found = struct.unpack_from(f"<{count}I", data, start)
        return all(512 <= b - a <= 256 * 520 for a, b in itertools.pairwise(found))

    def _counts(self, markers: int, count: int) -> Iterator[int]:
        """Where the number of symbols may stand: a word before the names."""
        step = self._word.size
        last = self._u32(markers + 4 * (count - 1))
        latest = (markers - last - step) & -step
        for at in range(latest, max(0, latest - 256 * 520), -step):
            if -(-self._u32(at) // 256) == count <= _MAX_SYMBOLS // 256:
                yield at

    def _names(self, at: int, total: int, markers: int, texts: list[bytes]) -> list[str] | None:
        data, start, names = self._data, at, []
        for number in range(total):
            if number % 256 == 0 and self._u32(markers + number // 64) != at - start:
                return None
            if at >= markers:
                return None
            length = data[at]
            at += 1
            if length & 0x80:
                length = length & 0x7F | data[at] << 7
                at += 1
            text = b"".join([texts[code] for code in data[at : at + length]])
            names.append(text.decode("ascii", "replace"))
            at += length
        return names if markers - self._word.size < at <= markers else None

    def _old_addresses(self, count_at: int, total: int) -> list[int] | None:
        """Offsets, then the base, then the number of symbols (before Linux 6.4)."""
        base_at = count_at - self._word.size
        return self._addresses(base_at - self._word.align(4 * total), base_at, total)

    def _new_addresses(self, index: int, total: int) -> list[int] | None:
        """Offsets and base after the token index."""
        at = self._word.align(index + 2 * TOKENS)
        return self._addresses(at, at + self._word.align(4 * total), total)

    def _addresses(self, offsets_at: int, base_at: int, total: int) -> list[int] | None:
        raw = self._data[offsets_at : offsets_at + 4 * total] if offsets_at >= 0 else b""
        base = int.from_bytes(self._data[base_at : base_at + self._word.size], "little")
        if len(raw) < 4 * total or base < self._word.start:
            return None
        offsets = struct.unpack(f"<{total}i", raw)
        if min(offsets) < 0:  # with absolute per-CPU symbols: those are not negative
            found = [o if o >= 0 else base - 1 - o for o in offsets]
        else:
            found = [base + o for o in offsets]
        rising = sum(a <= b for a, b in itertools.pairwise(found))
        return found if rising >= total - 1 - total // 1000 else None


class AddressSpace:
    """Reads guest-virtual memory through page tables."""

    def __init__(self, memory: MemoryLike, paging: Paging) -> None:
        self._memory = memory
        self.paging = paging
        self._pages: dict[int, int | None] = {}
        self.word = WORD64 if paging.is_long else WORD32
        self._mask = (1 << 8 * self.word.size) - 1

    def gpa(self, gva: int) -> int | None:
        """The physical address, None when it is not mapped."""
        page = gva // _PAGE
        if page not in self._pages:
            self._pages[page] = self.paging.translate(self._memory.read, page * _PAGE)
        base = self._pages[page]
        return None if base is None else base + gva % _PAGE

    def read(self, gva: int, length: int) -> bytes | None:
        """Read bytes; None when a part is not mapped."""
        parts = []
        while length > 0:
            gpa = self.gpa(gva & self._mask)
            if gpa is None:
                return None
            count = min(length, _PAGE - gva % _PAGE)
            parts.append(self._memory.read(gpa, count))
            gva += count
            length -= count
        return b"".join(parts)

    def pointer(self, gva: int) -> int | None:
        """Read a pointer."""
        data = self.read(gva, self.word.size)
        return None if data is None else int.from_bytes(data, "little")


def module_symbols(space: AddressSpace, modules: int) -> Iterator[ModuleSymbols]:
    """Walk the kernel's list of modules from its head or any link of it."""
    link: int | None = modules
    for _ in range(_MAX_MODULES):
        if link is None:
            return
        found = _module(space, link - space.word.list_at)
        if found is not None:
            yield found
        link = space.pointer(link)
        if link == modules:
            return


def find_modules(
    memory: MemoryLike, ranges: list[tuple[int, int]], spaces: Sequence[AddressSpace]
) -> int | None:
    """A link in the list of modules, of a kernel that has no symbols of data (`modules`).

    `spaces` are page tables that may be the kernel's.
    """
    word = spaces[0].word
    for start, length in ranges:
        for at in range(start, start + length, _STEP_BYTES):
            data = memory.read(at, min(_STEP_BYTES + _PAGE, start + length - at))
            for place in _module_places(data, word):
                following = int.from_bytes(data[place : place + word.size], "little")
                for space in spaces:
                    here = space.pointer(following + word.size)
                    if (
                        here is not None
                        and space.gpa(here) == at + place
                        and _module(space, here - word.list_at)
                    ):
                        return here
    return None


def _module_places(data: bytes, word: Word) -> list[int]:
    """Where links of `struct module` may lie in memory: behind a small number, the state, and
    before a name.
    """
    import numpy as np

    words = np.frombuffer(data, f"<u{word.size}", len(data) // word.size)
    state, following, previous, name = (words[n : len(words) - 3 + n] for n in range(4))
    low, first = 0xC0 << 8 * (word.size - 1), name & 0xFF
    found = (following >= low) & (previous >= low) & (state <= _MOST_STATE)
    found &= ((following | previous) % word.size == 0) & (first >= ord("a")) & (first <= ord("z"))
    places: list[int] = ((np.flatnonzero(found) + 1) * word.size).tolist()
    return places


def _module(space: AddressSpace, at: int) -> ModuleSymbols | None:
    word = space.word
    name = _text(space, at + word.name_at, word.name_bytes)
    raw = space.read(at, _MODULE_BYTES)
    if not name or raw is None:
        return None
    # The pointer `kallsyms` points to the structure that follows it, once the module is live; while
    # it is loaded to another one, which has the functions that are thrown away then, too.
    first = word.name_at + word.name_bytes
    loading: tuple[int, int, int] | None = None
    for offset in range(first, _MODULE_BYTES - word.kallsyms.size, word.size):
        pointer, symtab, count, strtab = word.kallsyms.unpack_from(raw, offset)
        if not 0 < count <= _MAX_MODULE_SYMBOLS:
            continue
        if pointer == at + offset + word.size:
            return ModuleSymbols(name, list(_elf_symbols(space, symtab, count, strtab)))
        if loading is None and min(pointer, symtab, strtab) >= word.start:
            loading = _loading(space, pointer, count)
    if loading is None:
        return None
    return ModuleSymbols(name, list(_elf_symbols(space, *loading)))


def _loading(space: AddressSpace, pointer: int, least: int) -> tuple[int, int, int] | None:
    """(symtab, count, strtab) of a `struct mod_kallsyms` with no fewer symbols, None if it is none.

    Its first symbol is the empty one, as in each ELF file.
    """
    word = space.word
    size = word.kallsyms.size - word.size
    raw = space.read(pointer, size)
    if raw is None:
        return None
    _, symtab, count, strtab = word.kallsyms.unpack(bytes(word.size) + raw)
    if not least <= count <= _MAX_MODULE_SYMBOLS or min(symtab, strtab) < word.start:
        return None
    null = space.read(symtab, word.symbol.size)
    names = space.read(strtab, 1)
    return (symtab, count, strtab) if null == bytes(word.symbol.size) and names == b"\0" else None


def _elf_symbols(space: AddressSpace, symtab: int, count: int, strtab: int) -> Iterator[Symbol]:
    entry, start = space.word.symbol, space.word.start
    raw = space.read(symtab, entry.size * count)
    if raw is None:
        return
    for fields in entry.iter_unpack(raw):
        if space.word is WORD64:
            name, info, _, section, value, _ = fields
        else:
            name, value, _, info, _, section = fields
        letter = _STT_LETTERS.get(info & 15)
        if section == _SHN_UNDEF or value < start or letter is None:
            continue
        text = _text(space, strtab + name, 256)
        if text:
            yield value, letter, text


def _text(space: AddressSpace, gva: int, limit: int) -> str:
    data = space.read(gva, min(limit, _PAGE - gva % _PAGE)) or b""
    if b"\0" not in data:
        data = space.read(gva, limit) or b""
    text = data.partition(b"\0")[0].decode("ascii", "replace")
    return text if text.isprintable() else ""
