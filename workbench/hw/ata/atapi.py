"""An ATAPI CD-ROM drive: PACKET (ATA/ATAPI-7 volume 2, 11.8), commands of MMC-3 and SPC-2.

One data track. Sense is kept for REQUEST SENSE; a change of the disc raises a unit attention. From
the host side, `receive("eject", b"")` presses the button and `receive("insert", b"0")` closes the
tray with one of `discs`; both come through the inputs. Deliberately not modelled: audio, writing,
DVD structures, overlapped commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from workbench.hw.ata.ata import transfer_mode_exists
from workbench.hw.ata.drive import (
    BYTE_PS,
    COMMAND_PS,
    SECTOR_BYTES,
    BlockDevice,
    Described,
    Drive,
    DriveState,
    Phase,
)
from workbench.hw.ata.identify import packet_words, to_bytes
from workbench.hw.ata.packets import SENSE_KEYS, describe_packet
from workbench.hw.ata.registers import ABRT, DRDY, DSC

__all__ = ["CD_BYTES", "AtapiDrive"]

CD_BYTES: Final = 2048
PACKET_BYTES: Final = 12
SEEK_PS: Final = 500_000_000
MOST_BYTE_COUNT: Final = 0xFFFE
MOST_DMA: Final = 32 << 20  # a longer READ 12 is a table that is too short
PREGAP: Final = 150  # frames before logical block 0

COD, IO = 1, 2  # Interrupt Reason: command or data, to the host

# key << 16 | ASC << 8 | ASCQ
NO_SENSE: Final = 0
NO_MEDIUM: Final = 0x023A00
INVALID_COMMAND: Final = 0x052000
OUT_OF_RANGE: Final = 0x052100
INVALID_FIELD: Final = 0x052400
REMOVAL_PREVENTED: Final = 0x055302
UNRECOVERED_READ: Final = 0x031100
MEDIUM_CHANGED: Final = 0x062800

EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_MEDIA_REMOVAL = 1, 2, 3


class _SenseError(Exception):
    """CHECK CONDITION."""

    def __init__(self, sense: int) -> None:
        super().__init__(f"{sense:06x}")
        self.sense = sense


class AtapiDrive(Drive):
    """A CD-ROM drive: `disc` is in it at power-on, `discs` are what else can be put into it."""

    SIGNATURE = 0xEB14
    IDLE_STATUS = DRDY | DSC
    RESET_STATUS = 0

    def __init__(
        self,
        name: str,
        disc: BlockDevice | None = None,
        *,
        discs: Sequence[BlockDevice] = (),
        serial: str = "",
        model: str = "WORKBENCH CD-ROM",
        firmware: str = "1.0",
    ) -> None:
        # Wires
        self.discs: tuple[BlockDevice | None, ...] = (disc, *discs)  # by the number of "insert"
        self.serial = serial or f"WB{name}"
        self.model = model
        self.firmware = firmware
        # Book-keeping
        self._commands = self._table()
        super().__init__(name)

    def _table(self) -> dict[int, Callable[[bytes], None]]:
        return {
            0x00: self._test_unit_ready,
            0x03: self._request_sense,
            0x12: self._inquiry,
            0x1A: self._mode_sense6,
            0x1B: self._start_stop,
            0x1E: self._prevent_allow,
            0x25: self._read_capacity,
            0x28: self._read10,
            0x2B: self._seek,
            0x42: self._read_subchannel,
            0x43: self._read_toc,
            0x46: self._get_configuration,
            0x4A: self._get_event,
            0x51: self._read_disc_information,
            0x5A: self._mode_sense10,
            0xA8: self._read12,
            0xBB: self._ready,  # SET CD SPEED
            0xBD: self._mechanism_status,
            0xBE: self._read_cd,
        }

    def power_on(self, state: DriveState) -> None:
        """The first disc is in."""
        super().power_on(state)

    def settings_to_default(self) -> None:
        """A reset forgets the sense and unlocks the tray."""
        super().settings_to_default()
        self.state.sense = NO_SENSE
        self.state.locked = 0

    # -- media -----------------------------------------------------------------------------------

    @property
    def disc(self) -> BlockDevice | None:
        """What is in the drive."""
        state = self.state
        if state.tray_open or state.disc >= len(self.discs):
            return None
        return self.discs[state.disc]

    @property
    def blocks(self) -> int:
        """Number of blocks of 2,048 bytes."""
        disc = self.disc
        return 0 if disc is None else disc.sectors * 512 // CD_BYTES

    def receive(self, kind: str, data: bytes) -> None:
        """Host input: `eject`, or `insert` with the number of a disc in decimal."""
        state = self.state
        if kind == "eject":
            if state.locked:
                state.event = EVENT_EJECT_REQUEST
            else:
                self._open()
        elif kind == "insert" and (state.tray_open or not state.locked):
            state.disc = min(int(data) if data.isdigit() and len(data) < 4 else 0, 255)
            self._close()

    def _open(self) -> None:
        self.state.tray_open = 1
        self.state.event = EVENT_MEDIA_REMOVAL

    def _close(self) -> None:
        self.state.tray_open = 0
        if self.disc is not None:
            self.state.attention = MEDIUM_CHANGED
            self.state.event = EVENT_NEW_MEDIA

    # -- ATA commands ----------------------------------------------------------------------------

    def execute(self, code: int) -> None:
        """Execute an ATA command."""
        state = self.state
        match code:
            case 0x08:  # DEVICE RESET
                self._signature(state)
                state.packet_dma = 0
                self._end_request()
            case 0xA0:
                self._packet()
            case 0xA1:
                words = packet_words(state, self.serial, self.firmware, self.model)
                state.buffer = bytearray(to_bytes(words))
                self._busy(Phase.READ, COMMAND_PS)
            case 0xEC | 0x20 | 0x21:  # IDENTIFY DEVICE, READ SECTOR(S): show what this is (9.12)
                state.count = state.lbal = 1
                state.lbam, state.lbah = self.SIGNATURE & 0xFF, self.SIGNATURE >> 8
                self._fail()
            case 0xE0 | 0xE1 | 0xE2 | 0xE3:
                state.power = 0xFF if code & 1 else 0
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xE5:
                state.count = state.power
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xE6:
                state.power = 1
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xEF if state.features & 0xFF == 0x03 and transfer_mode_exists(state.count & 0xFF):
                state.transfer_mode = state.count & 0xFF
                self._busy(Phase.FINISH, COMMAND_PS)
            case 0xEF if state.features & 0xFF in (0x66, 0xCC):
                self._busy(Phase.FINISH, COMMAND_PS)
            case _:
                self._fail()

    def _packet(self) -> None:
        """DRQ for the packet, without an interrupt, as word 0 of the identification promises."""
        state = self.state
        if state.features & 2:  # overlapped
            self._fail()
            return
        state.packet_dma = state.features & 1
        limit = state.lbam & 0xFF | (state.lbah & 0xFF) << 8
        state.block = (0xFFFE if limit == 0xFFFF else limit & ~1 if limit > 1 else limit) or 0x10000
        state.count = COD
        state.command = 0xA0
        self._accept(PACKET_BYTES, interrupt=False)

    def block_written(self) -> None:
        """The packet is complete."""
        self._busy(Phase.EXECUTE, COMMAND_PS)

    def block_read(self) -> None:
        """The host has taken a block: the next, or status."""
        state = self.state
        if state.command != 0xA0:
            self._drop()
            self._idle()
        elif state.left:
            self._busy(Phase.READ, COMMAND_PS + min(state.block, state.left) * BYTE_PS)
        else:
            self._busy(Phase.FINISH, COMMAND_PS)

    def proceed(self, phase: Phase) -> None:
        """The packet is to be executed, or a block is there."""
        if phase is Phase.EXECUTE:
            packet = bytes(self.state.buffer[:PACKET_BYTES]).ljust(PACKET_BYTES, b"\0")
            self._drop()
            self._update_request(packet)
            try:
                self._command(packet)
            except _SenseError as error:
                self._check(error.sense)
        elif phase is Phase.READ:
            if self.state.command == 0xA0:
                self._offer_part()
            else:
                self._offer(self.state.buffer)

    def _update_request(self, packet: bytes) -> None:
        """Now it is known what the PACKET command is for."""
        state = self.state
        name, block, length_bytes = describe_packet(packet)
        mode = self.transfer_mode_name() if state.packet_dma else "PIO"
        self.requests.update(
            state.request,
            name,
            address=block,
            length=length_bytes,
            detail=f"drive {state.device >> 4 & 1} {mode if length_bytes else ''}".rstrip(),
        )

    def describe(self, code: int) -> Described:
        """Of the other ATA commands; what a PACKET is for comes with the packet."""
        return Described(0, SECTOR_BYTES, False, "PIO") if code == 0xA1 else Described()

    def error_name(self, error: int) -> str:
        """The sense key of a PACKET command that failed."""
        if self.state.command != 0xA0 or not error >> 4:
            return super().error_name(error)
        return SENSE_KEYS.get(error >> 4, f"sense key {error >> 4:X}h")

    def _command(self, packet: bytes) -> None:
        state = self.state
        code = packet[0]
        command = self._commands.get(code)
        if state.attention and code not in (0x03, 0x12, 0x46, 0x4A):
            sense, state.attention = state.attention, 0
            raise _SenseError(sense)
        if command is None:
            raise _SenseError(INVALID_COMMAND)
        if code != 0x03:
            state.sense = NO_SENSE
        command(packet)

    def _check(self, sense: int) -> None:
        """CHECK CONDITION: the sense key is in the Error register."""
        state = self.state
        state.sense = sense
        state.count = COD | IO
        self._fail(sense >> 16 << 4 | ABRT)

    def _done(self) -> None:
        self.state.count = COD | IO if self.state.command == 0xA0 else self.state.count
        super()._done()

    # -- data to the host ------------------------------------------------------------------------

    def _send(self, data: bytes, allocation: int) -> None:
        """Give at most `allocation` bytes of what the drive has in itself."""
        state = self.state
        state.reply = bytearray(data[:allocation])
        state.from_disc = state.lba = 0
        self._transfer(len(state.reply), COMMAND_PS)

    def _send_blocks(self, block: int, count: int) -> None:
        """Give blocks of the disc."""
        disc_blocks = self._loaded()
        if block + count > disc_blocks:
            raise _SenseError(OUT_OF_RANGE)
        state = self.state
        state.from_disc, state.lba = 1, block * CD_BYTES
        self._transfer(count * CD_BYTES, SEEK_PS)

    def _transfer(self, length_bytes: int, ps: int) -> None:
        state = self.state
        state.left = length_bytes
        if not length_bytes:
            self._busy(Phase.FINISH, COMMAND_PS)
        elif state.packet_dma:
            self._request_dma(ps + length_bytes * BYTE_PS)
        elif state.block > 0xFFFE:  # a byte count limit of 0
            self._fail()
        else:
            self._busy(Phase.READ, ps + min(state.block, length_bytes) * BYTE_PS)

    def _bytes(self, at: int, length: int) -> bytes:
        """Bytes of the reply or of the disc; zeros where there are none any more."""
        state = self.state
        if not state.from_disc:
            return bytes(state.reply[at : at + length]).ljust(length, b"\0")
        disc = self.disc
        first, end = at // SECTOR_BYTES, -(-(at + length) // SECTOR_BYTES)
        inside = 0 if disc is None else max(0, min(end, disc.sectors) - first)
        data = disc.read(first, inside) if disc is not None and inside else b""
        skip = at - first * SECTOR_BYTES
        return bytes(data[skip : skip + length]).ljust(length, b"\0")

    def _offer_part(self) -> None:
        """The next block of PIO: at most the byte count limit."""
        state = self.state
        length = max(min(state.block, state.left, MOST_BYTE_COUNT), 1)
        data = self._bytes(state.lba, length)
        state.lba += length
        state.left = max(state.left - length, 0)
        state.count = IO
        state.lbam, state.lbah = length & 0xFF, length >> 8
        self._offer(data)

    @property
    def dma_bytes(self) -> int:
        """Length of the transfer."""
        return min(self.state.left, MOST_DMA)

    @property
    def dma_to_memory(self) -> bool:
        """Always: nothing is written to a CD-ROM."""
        return True

    def dma_read(self, length_bytes: int) -> bytes:
        """The first bytes of the transfer."""
        return self._bytes(self.state.lba, length_bytes)

    def medium_error(self) -> None:
        """The disc cannot be read."""
        self._check(UNRECOVERED_READ)

    # -- packets without data --------------------------------------------------------------------

    def _loaded(self) -> int:
        """Number of blocks; CHECK CONDITION without a disc."""
        if self.disc is None:
            raise _SenseError(NO_MEDIUM)
        return self.blocks

    def _ready(self, packet: bytes) -> None:
        self._busy(Phase.FINISH, COMMAND_PS)

    def _test_unit_ready(self, packet: bytes) -> None:
        self._loaded()
        self._ready(packet)

    def _seek(self, packet: bytes) -> None:
        if _u32(packet, 2) >= self._loaded():
            raise _SenseError(OUT_OF_RANGE)
        self._busy(Phase.FINISH, SEEK_PS)

    def _start_stop(self, packet: bytes) -> None:
        match packet[4] & 3:
            case 2:  # LoEj without Start
                if self.state.locked:
                    raise _SenseError(REMOVAL_PREVENTED)
                if not self.state.tray_open:
                    self._open()
            case 3:
                if self.state.tray_open:
                    self._close()
        self._ready(packet)

    def _prevent_allow(self, packet: bytes) -> None:
        self.state.locked = packet[4] & 1
        self._ready(packet)

    # -- packets with data -----------------------------------------------------------------------

    def _request_sense(self, packet: bytes) -> None:
        state = self.state
        sense = state.sense or state.attention
        if sense == state.attention:
            state.attention = 0
        state.sense = NO_SENSE
        data = bytearray(18)
        data[0] = 0x70
        data[2], data[7] = sense >> 16, 10
        data[12], data[13] = sense >> 8 & 0xFF, sense & 0xFF
        self._send(bytes(data), packet[4])

    def _inquiry(self, packet: bytes) -> None:
        data = bytearray(36)
        data[0], data[1], data[2], data[3], data[4] = 0x05, 0x80, 0x00, 0x21, 31
        data[8:16] = b"WORKBNCH"
        data[16:32] = self.model.encode("ascii", "replace")[:16].ljust(16)
        data[32:36] = self.firmware.encode("ascii", "replace")[:4].ljust(4)
        self._send(bytes(data), packet[4])

    def _read_capacity(self, packet: bytes) -> None:
        last = max(self._loaded() - 1, 0)
        self._send(last.to_bytes(4, "big") + CD_BYTES.to_bytes(4, "big"), 8)

    def _read10(self, packet: bytes) -> None:
        self._send_blocks(_u32(packet, 2), _u16(packet, 7))

    def _read12(self, packet: bytes) -> None:
        self._send_blocks(_u32(packet, 2), _u32(packet, 6))

    def _read_cd(self, packet: bytes) -> None:
        """READ CD: user data of mode 1 only."""
        count = int.from_bytes(packet[6:9], "big")
        parts = packet[9] & 0xF8
        if parts == 0 or not count:
            self._loaded()
            self._ready(packet)
        elif parts == 0x10 and packet[1] >> 2 & 7 in (0, 2):
            self._send_blocks(_u32(packet, 2), count)
        else:
            raise _SenseError(INVALID_FIELD)

    def _read_toc(self, packet: bytes) -> None:
        """Formats 0 (tracks), 1 (sessions) and 2 (full), in LBA or MSF."""
        blocks = self._loaded()
        msf = bool(packet[1] & 2)
        match packet[2] & 0xF or packet[9] >> 6:
            case 0:
                start = packet[6]
                if start > 1 and start != 0xAA:
                    raise _SenseError(INVALID_FIELD)
                body = b"" if start == 0xAA else b"\0\x14\x01\0" + _address(0, msf)
                body += b"\0\x16\xaa\0" + _address(blocks, msf)
                head = b"\1\1"
            case 1:
                head, body = b"\1\1", b"\0\x14\x01\0" + _address(0, msf)
            case 2:
                head, body = b"\1\1", b""
                for point, where in ((0xA0, None), (0xA1, None), (0xA2, blocks), (1, 0)):
                    place = b"\0\1\0\0" if where is None else _address(where, True)
                    body += bytes((1, 0x14, 0, point, 0, 0, 0)) + place
            case _:
                raise _SenseError(INVALID_FIELD)
        data = (len(body) + 2).to_bytes(2, "big") + head + body
        self._send(data, _u16(packet, 7))

    def _read_subchannel(self, packet: bytes) -> None:
        self._loaded()
        self._send(bytes((0, 0x15, 0, 0)), _u16(packet, 7))

    def _read_disc_information(self, packet: bytes) -> None:
        self._loaded()
        data = bytearray(34)
        data[1], data[2], data[3], data[4], data[5], data[6] = 32, 0x0E, 1, 1, 1, 1
        data[7] = 0x20
        self._send(bytes(data), _u16(packet, 7))

    def _get_configuration(self, packet: bytes) -> None:
        """Profile CD-ROM; features profile list, core and removable medium (MMC-3 5.3)."""
        present = self.disc is not None
        wanted = _u16(packet, 2)
        kind = packet[1] & 3
        features = {
            0x0000: bytes((0x03, 0x04, 0x00, 0x08, int(present), 0x00)),
            0x0001: bytes((0x03, 0x04, 0x00, 0x00, 0x00, 0x02)),
            0x0003: bytes((0x03, 0x04, 0x29, 0x00, 0x00, 0x00)),
            0x001E: bytes((int(present), 0x00)),
        }
        body = b"".join(
            number.to_bytes(2, "big") + data
            for number, data in features.items()
            if (number == wanted if kind == 2 else number >= wanted) and (kind != 1 or data[0] & 1)
        )
        head = b"\0\0" + (8 if present else 0).to_bytes(2, "big")
        self._send((len(body) + 4).to_bytes(4, "big") + head + body, _u16(packet, 7))

    def _get_event(self, packet: bytes) -> None:
        """GET EVENT STATUS NOTIFICATION, polled; class 4 is media."""
        state = self.state
        if not packet[1] & 1:
            raise _SenseError(INVALID_FIELD)
        if packet[4] & 0x10:
            status = state.tray_open | (2 if self.disc is not None else 0)
            data = bytes((0, 4, 4, 0x10, state.event, status, 0, 0))
            if _u16(packet, 7) > 4:
                state.event = 0
        else:
            data = bytes((0, 2, 0x80, 0x10))
        self._send(data, _u16(packet, 7))

    def _mechanism_status(self, packet: bytes) -> None:
        self._send(bytes((0, self.state.tray_open << 4, 0, 0, 0, 1, 0, 0)), _u16(packet, 8))

    def _mode_pages(self, wanted: int) -> bytes:
        pages = {
            0x01: bytes((0x01, 6, 0, 5, 0, 0, 0, 0)),
            0x0E: bytes((0x0E, 14, 4, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0)),
            # reads no CD-R; mode 2, multisession; lock, eject, tray; 706 kB/s
            0x2A: bytes((0x2A, 18, 0, 0, 0x70, 0x60, 0x29 | self.state.locked << 1, 0))
            + bytes((2, 0xC2, 0, 2, 2, 0, 2, 0xC2, 0, 0, 0, 0)),
        }
        if wanted == 0x3F:
            return b"".join(pages.values())
        if wanted not in pages:
            raise _SenseError(INVALID_FIELD)
        return pages[wanted]

    def _mode_sense10(self, packet: bytes) -> None:
        pages = self._mode_pages(packet[2] & 0x3F)
        medium = 0x01 if self.disc is not None else 0x71 if self.state.tray_open else 0x70
        head = (len(pages) + 6).to_bytes(2, "big") + bytes((medium, 0, 0, 0, 0, 0))
        self._send(head + pages, _u16(packet, 7))

    def _mode_sense6(self, packet: bytes) -> None:
        pages = self._mode_pages(packet[2] & 0x3F)
        medium = 0x01 if self.disc is not None else 0x71 if self.state.tray_open else 0x70
        self._send(bytes((len(pages) + 3, medium, 0, 0)) + pages, packet[4])


def _u16(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def _u32(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 4], "big")


def _address(block: int, msf: bool) -> bytes:
    """Four bytes: a logical block, or minutes, seconds and frames."""
    if not msf:
        return block.to_bytes(4, "big")
    frames = block + PREGAP
    return bytes((0, min(frames // 4500, 255), frames // 75 % 60, frames % 75))
