"""fw_cfg: selector, data port, directory and DMA, against the specification's layouts."""

from __future__ import annotations

import struct

import pytest

from workbench.hw.fw_cfg import FILE_DIR, FILE_FIRST, FwCfg

MEMORY = 1 << 16


class Board:
    def __init__(self) -> None:
        self.memory = bytearray(MEMORY)
        self.dma: list[tuple[str, int, int, bool]] = []
        self.device = FwCfg(self._read, self._write, lambda *a: self.dma.append(a), MEMORY)
        self.ports, self.address = self.device.windows()

    def _read(self, gpa: int, n: int) -> bytes:
        return bytes(self.memory[gpa : gpa + n]).ljust(n, b"\xff")

    def _write(self, gpa: int, data: bytes) -> None:
        self.memory[gpa : gpa + len(data)] = data

    def select(self, key: int) -> None:
        self.ports.write(0, 2, key)

    def bytes(self, n: int) -> bytes:
        return bytes(self.ports.read(1, 1) for _ in range(n))

    def run_dma(self, control: int, length: int, gpa: int, at: int = 0x100) -> int:
        self.memory[at : at + 16] = struct.pack(">IIQ", control, length, gpa)
        self.address.write(0, 4, 0)
        self.address.write(4, 4, int.from_bytes(struct.pack(">I", at), "little"))
        return int(struct.unpack_from(">I", self.memory, at)[0])


@pytest.fixture
def board() -> Board:
    made = Board()
    made.device.add_file("etc/two", b"second")
    made.device.add_file("etc/one", b"first file")
    return made


def test_signature_and_features(board: Board) -> None:
    board.select(0)
    assert board.bytes(6) == b"QEMU\0\0"
    board.select(1)
    assert board.bytes(4) == b"\x03\0\0\0"  # data port and DMA
    assert board.address.read(0, 4).to_bytes(4, "little") == b"QEMU"
    assert board.address.read(4, 4).to_bytes(4, "little") == b" CFG"


def test_the_directory_is_big_endian_and_sorted(board: Board) -> None:
    board.select(FILE_DIR)
    directory = board.bytes(4 + 2 * 64)
    assert struct.unpack_from(">I", directory) == (2,)
    entries = [struct.unpack_from(">IHH56s", directory, 4 + 64 * n) for n in range(2)]
    assert [(e[0], e[1], e[3].rstrip(b"\0")) for e in entries] == [
        (10, FILE_FIRST + 1, b"etc/one"),
        (6, FILE_FIRST, b"etc/two"),
    ]


def test_reads_go_on_where_they_were_and_end_in_zeros(board: Board) -> None:
    board.select(FILE_FIRST)
    assert board.bytes(2) == b"se"
    assert board.device.read_block(1, 1, 3) == b"con"
    assert board.bytes(3) == b"d\0\0"
    board.select(0x3FFF)
    assert board.bytes(2) == b"\0\0"


def test_dma_selects_skips_and_reads(board: Board) -> None:
    assert board.run_dma((FILE_FIRST + 1) << 16 | 8, 0, 0) == 0  # select
    assert board.run_dma(4, 6, 0) == 0  # skip
    assert board.run_dma(2, 6, 0x800) == 0  # read
    assert board.memory[0x800:0x806] == b"file\0\0"
    assert board.dma == [("fw_cfg", 0x800, 6, True)]


def test_dma_writes_are_refused(board: Board) -> None:
    assert board.run_dma(FILE_FIRST << 16 | 8 | 16, 4, 0x800) == 1


def test_a_transfer_of_4_gib_ends_where_memory_ends(board: Board) -> None:
    board.memory[:] = b"x" * MEMORY
    assert board.run_dma(FILE_FIRST << 16 | 8 | 2, 0xFFFF_FFFF, 0x8000) == 0
    assert board.memory[0x8000:] == b"second".ljust(0x8000, b"\0")
    board.run_dma(FILE_FIRST << 16 | 8 | 2, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_F000)


def test_names_have_to_fit(board: Board) -> None:
    with pytest.raises(ValueError, match="below 56 bytes"):
        board.device.add_file("x" * 56, b"")
    with pytest.raises(ValueError, match="expected a new one"):
        board.device.add_file("etc/one", b"")
