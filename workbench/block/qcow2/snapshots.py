"""Internal snapshots (qcow2.txt, "Snapshots"): listed, and their clusters left alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from workbench.block.hostfile import HostFile
from workbench.block.qcow2.header import MAX_L1_BYTES, Header
from workbench.errors import FormatError

_ENTRY = struct.Struct(">QIHHIIQII")
MAX_TABLE_BYTES = 16 << 20
MAX_EXTRA_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One internal snapshot."""

    number: str  # "unique ID string"
    name: str
    created_s: int
    created_ns: int
    guest_time_ns: int
    vm_state_bytes: int
    disk_bytes: int  # size of the disk at that time
    l1_offset: int
    l1_entries: int


def parse(file: HostFile, header: Header) -> tuple[list[Snapshot], int]:
    """The snapshots, and the length of their table. Raises FormatError."""
    found: list[Snapshot] = []
    start = at = header.snapshots_offset
    for _ in range(header.snapshots):
        fixed = file.read_exactly(at, _ENTRY.size, "the snapshot table")
        l1_at, l1_n, id_len, name_len, sec, ns, clock, state, extra_len = _ENTRY.unpack(fixed)
        if extra_len > MAX_EXTRA_BYTES:
            raise FormatError(
                f"expected at most {MAX_EXTRA_BYTES} extra bytes of a snapshot, not {extra_len}",
                path=file.name, offset=at,
            )  # fmt: skip
        if l1_n * 8 > MAX_L1_BYTES or l1_at % header.cluster_bytes:
            raise FormatError("expected a snapshot's L1 table", path=file.name, offset=at)
        length = extra_len + id_len + name_len
        rest = file.read_exactly(at + _ENTRY.size, length, "the snapshot table")
        extra = rest[:extra_len]
        disk = header.size_bytes
        if extra_len >= 8:
            state = int.from_bytes(extra[:8], "big")
        if extra_len >= 16:
            disk = int.from_bytes(extra[8:16], "big")
        number = rest[extra_len : extra_len + id_len].decode("utf-8", "replace")
        name = rest[extra_len + id_len :].decode("utf-8", "replace")
        found.append(Snapshot(number, name, sec, ns, clock, state, disk, l1_at, l1_n))
        at += (_ENTRY.size + length + 7) // 8 * 8
        if at - start > MAX_TABLE_BYTES:
            raise FormatError("expected a smaller snapshot table", path=file.name, offset=at)
    return found, at - start
