"""What disks and packet devices have in common: task file, data port, timing, reset, diagnostics.

ATA/ATAPI-7 volume 2. A drive is a small machine of phases. It is busy until its timer, then either
offers a block of data at its data port, moves all its data through the bus master, or is done; each
step asks for an interrupt where the protocols in clause 11 say so.

Times are functions of the request alone. They are those of a quick drive; a guest that waits in
HLT skips them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from workbench.block.errors import DiskError
from workbench.core.clock import Clock
from workbench.core.requests import OK, RESET, Requests
from workbench.hw.ata.registers import ABRT, BSY, DRDY, DRQ, DSC, ERR, ERROR, command_name

__all__ = ["SECTOR_BYTES", "BlockDevice", "BusMaster", "Drive", "DriveState", "Phase"]

SECTOR_BYTES: Final = 512
PS_PER_US: Final = 1_000_000

COMMAND_PS: Final = 10 * PS_PER_US  # a command without data
ACCESS_PS: Final = 100 * PS_PER_US  # the first sector of a command
BLOCK_PS: Final = 5 * PS_PER_US  # each further block of a PIO command
BYTE_PS: Final = 5_000  # 200 MB/s
FLUSH_PS: Final = 200 * PS_PER_US
RESET_PS: Final = 1_000 * PS_PER_US

DIAGNOSTIC_PASSED: Final = 0x01
MOST_BUFFER: Final = 1 << 17
EXECUTE_DEVICE_DIAGNOSTIC: Final = 0x90
ABORTED: Final = "aborted"  # by another command
SHORT: Final = "short"  # the descriptor table had no room for all


class BlockDevice(Protocol):
    """Sectors of 512 bytes, as `workbench.block` gives them."""

    @property
    def sectors(self) -> int:
        """How many there are."""

    @property
    def read_only(self) -> bool:
        """Whether the drive must refuse writes."""

    def read(self, lba: int, count: int) -> bytes | memoryview:
        """`count` sectors from `lba`; DiskError if they cannot be read."""

    def write(self, lba: int, data: bytes) -> None:
        """Whole sectors from `lba`."""

    def flush(self) -> None:
        """To stable storage."""

    def discard(self, lba: int, count: int) -> None:
        """The content is not needed any more."""


class BusMaster(Protocol):
    """The DMA engine of a channel."""

    def ready(self, drive: Drive) -> None:
        """The drive asserts DMARQ; the engine calls `dma_read` or `dma_write`, and then `dma_done`
        or `dma_short`, now or when it is started.
        """


class Phase(enum.Enum):
    """What a drive is doing."""

    IDLE = "idle"
    DATA_IN = "data-in"
    DATA_OUT = "data-out"
    DMA_WAIT = "dma-wait"  # for the bus master to be started
    # busy until the timer, and then:
    FINISH = "finish"
    FLUSH = "flush"
    READ = "read"
    WRITE = "write"
    DMA = "dma"
    EXECUTE = "execute"
    RESET = "reset"
    DIAGNOSE = "diagnose"


@dataclass(slots=True)
class DriveState:
    """Task file (each address register with its previous content in bits 15:8), transfer,
    settings.
    """

    features: int = 0
    count: int = 0
    lbal: int = 0
    lbam: int = 0
    lbah: int = 0
    device: int = 0
    error: int = DIAGNOSTIC_PASSED
    status: int = 0
    intrq: int = 0
    # the command that is being executed
    phase: Phase = Phase.IDLE
    request: int = 0  # its number, 0 for none
    command: int = 0
    lba: int = 0
    left: int = 0  # sectors (disk) or bytes (packet device) after the buffer
    block: int = 1  # sectors or bytes in a block of PIO
    buffer: bytearray = field(default_factory=bytearray)
    pos: int = 0
    # settings
    transfer_mode: int = 0x0C  # PIO 4
    multiple: int = 16
    write_cache: int = 1
    look_ahead: int = 1
    smart: int = 1
    heads: int = 16
    sectors_per_track: int = 63
    power: int = 0xFF  # as in CHECK POWER MODE; 1 is sleep
    # packet devices
    packet_dma: int = 0
    from_disc: int = 0
    """The transfer comes from the disc, these parts of each sector (`rawsector.PARTS`; 1 as data
    alone); `lba` is the position in bytes of them. Else it comes from `reply`.
    """
    reply: bytearray = field(default_factory=bytearray)
    sense: int = 0  # key << 16 | ASC << 8 | ASCQ
    attention: int = 0  # sense of a unit attention to be reported
    tray_open: int = 0
    locked: int = 0
    disc: int = 0
    event: int = 0

    def __post_init__(self) -> None:
        """Bounds for what a snapshot says; raises ValueError."""
        for name, most in _LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"expected {name} from 0 to {most}, not {getattr(self, name)!r}")
        if self.heads < 1 or self.sectors_per_track < 1 or self.block < 1:
            raise ValueError("expected a geometry and a block of at least 1")
        if self.pos > len(self.buffer) or len(self.buffer) > MOST_BUFFER:
            raise ValueError(f"expected a position in the buffer, not {self.pos!r}")
        if self.phase in (Phase.DATA_IN, Phase.DATA_OUT) and self.pos == len(self.buffer):
            raise ValueError("expected data in the buffer of a data phase")


_LIMITS: Final = {
    **dict.fromkeys(("features", "count", "lbal", "lbam", "lbah"), 0xFFFF),
    **dict.fromkeys(("device", "error", "status", "command", "transfer_mode", "power"), 0xFF),
    **dict.fromkeys(("intrq", "write_cache", "look_ahead", "smart", "packet_dma"), 1),
    **dict.fromkeys(("tray_open", "locked"), 1),
    "from_disc": 0xF8,
    **dict.fromkeys(("sense", "attention"), 0xFFFFFF),
    "event": 15,
    "lba": (1 << 48) - 1,
    "left": 1 << 40,
    "block": MOST_BUFFER,
    "request": (1 << 63) - 1,
    "multiple": 16,
    "heads": 16,
    "sectors_per_track": 255,
    "disc": 255,
    "pos": MOST_BUFFER,
}


@dataclass(frozen=True, slots=True)
class Described:
    """What a command is to do: its address, bytes, direction, and PIO or the mode of DMA."""

    lba: int = 0
    length_bytes: int = 0
    write: bool = False
    mode: str = ""


class Drive:
    """One drive of a channel; `AtaDisk` and `AtapiDrive` say what it executes."""

    SIGNATURE: ClassVar[int] = 0  # LBA Mid and LBA High after reset
    IDLE_STATUS: ClassVar[int] = DRDY | DSC
    RESET_STATUS: ClassVar[int] = DRDY | DSC

    def __init__(self, name: str) -> None:
        # Wires
        self.name = name
        self.clock = Clock()
        self.requests = Requests(name)
        self._changed: Callable[[], None] = lambda: None
        self._master: BusMaster | None = None
        self._timer = self.clock.timer(name, self._due)
        # State
        self.state = DriveState()
        self.power_on(self.state)

    def wire(
        self,
        clock: Clock,
        label: str,
        changed: Callable[[], None],
        master: BusMaster,
        requests: Requests,
    ) -> None:
        """Called once by the channel; `changed` tells it to look at `intrq`."""
        assert self._master is None, f"{self.name} is in a channel already"
        self.clock = clock
        self.requests = requests
        self._changed = changed
        self._master = master
        self._timer = clock.timer(f"{label}.{self.name}", self._due, work=True)

    # -- life ------------------------------------------------------------------------------------

    def power_on(self, state: DriveState) -> None:
        """Fill in the state after power-on or hardware reset."""
        self._signature(state)

    def stop(self) -> None:
        """Nothing is under way any more."""
        self._timer.cancel()
        self._end_request(RESET)

    def _signature(self, state: DriveState) -> None:
        """Clause 9.12: what a host recognises the kind of drive by."""
        state.count = state.lbal = 1
        state.lbam, state.lbah = self.SIGNATURE & 0xFF, self.SIGNATURE >> 8
        state.device &= 0x10
        state.error = DIAGNOSTIC_PASSED
        state.status = self.RESET_STATUS
        state.phase = Phase.IDLE
        state.intrq = 0

    def soft_reset(self, asserted: bool) -> None:
        """SRST of the channel goes up or down (9.3)."""
        state = self.state
        self._end_request(RESET)
        self._drop()
        state.intrq = 0
        state.status = BSY
        state.phase = Phase.RESET
        if asserted:
            self._timer.cancel()
        else:
            self._timer.arm(self.clock.now_ps + RESET_PS)

    def diagnose(self) -> None:
        """EXECUTE DEVICE DIAGNOSTIC, which both drives execute (9.10)."""
        self._end_request(ABORTED)
        self._drop()
        self.state.intrq = 0
        self._begin_request(EXECUTE_DEVICE_DIAGNOSTIC)
        self._busy(Phase.DIAGNOSE, RESET_PS)

    def settings_to_default(self) -> None:
        """What a software reset changes besides the task file."""
        state = self.state
        state.power = 0xFF
        state.packet_dma = 0

    def _drop(self) -> None:
        state = self.state
        state.buffer = bytearray()
        state.pos = state.left = 0

    # -- registers -------------------------------------------------------------------------------

    def write_command(self, code: int) -> None:
        """The Command register; without effect while busy."""
        state = self.state
        if state.status & BSY:
            return
        state.intrq = 0
        if state.power == 1:
            return  # asleep: only a reset wakes it
        self._end_request(ABORTED)
        self._drop()
        state.error = 0
        state.command = code
        state.phase = Phase.IDLE
        state.status = self.IDLE_STATUS
        self._begin_request(code)
        self.execute(code)

    def execute(self, code: int) -> None:
        """Execute a command; the drive is idle."""
        raise NotImplementedError

    # -- data port -------------------------------------------------------------------------------

    def read_data(self, size: int) -> int:
        """One access to the Data register; 0 outside a data-in phase."""
        state = self.state
        if state.phase is not Phase.DATA_IN:
            return 0
        pos = state.pos
        state.pos = end = pos + size
        value = int.from_bytes(state.buffer[pos:end], "little")
        if end >= len(state.buffer):
            self._block_is_read()
        return value

    def write_data(self, size: int, value: int) -> None:
        """One access to the Data register; nothing outside a data-out phase."""
        self.write_data_block(value.to_bytes(size, "little"))

    def read_data_block(self, count_bytes: int) -> bytes:
        """The same as that many bytes read one after the other."""
        state = self.state
        if state.phase is not Phase.DATA_IN:
            return bytes(count_bytes)
        pos = state.pos
        data = bytes(state.buffer[pos : pos + count_bytes])
        state.pos = pos + len(data)
        if state.pos >= len(state.buffer):
            self._block_is_read()
        return data + bytes(count_bytes - len(data))

    def write_data_block(self, data: bytes) -> None:
        """The same as these bytes written one after the other."""
        state = self.state
        if state.phase is not Phase.DATA_OUT:
            return
        pos = state.pos
        end = min(pos + len(data), len(state.buffer))
        state.buffer[pos:end] = data[: end - pos]
        state.pos = end
        if end == len(state.buffer):
            self.block_written()

    def _block_is_read(self) -> None:
        self.state.pos = len(self.state.buffer)
        self.block_read()

    def block_read(self) -> None:
        """The host has taken the whole block."""
        raise NotImplementedError

    def block_written(self) -> None:
        """The host has given the whole block."""
        raise NotImplementedError

    # -- what is told of commands ----------------------------------------------------------------

    def describe(self, code: int) -> Described:
        """What the task file says that a command is to do."""
        return Described()

    def error_name(self, error: int) -> str:
        """The bits of the Error register of a command that failed."""
        names = [bit.name for bit in ERROR.fields if error & bit.mask]
        return " ".join(names) or f"ERROR {error:#04x}"

    def transfer_mode_name(self) -> str:
        """The mode of DMA that the host has chosen by SET FEATURES."""
        kind, number = self.state.transfer_mode >> 3, self.state.transfer_mode & 7
        return {4: f"MWDMA{number}", 8: f"UDMA{number}"}.get(kind, "DMA")

    def _begin_request(self, code: int) -> None:
        state = self.state
        told = self.describe(code)
        words = [f"drive {state.device >> 4 & 1}", told.mode]
        if state.features & 0xFF:
            words.append(f"FEATURES={state.features & 0xFF:#04x}")
        state.request = self.requests.begin(
            command_name(code),
            address=told.lba,
            length=told.length_bytes,
            write=told.write,
            detail=" ".join(word for word in words if word),
        )

    def _end_request(self, status: str = OK) -> None:
        state = self.state
        if state.request:
            number, state.request = state.request, 0
            registers = f"STATUS={state.status:#04x} ERROR={state.error:#04x}"
            self.requests.end(number, status, "" if status == RESET else registers)

    # -- what commands are made of ---------------------------------------------------------------

    def _busy(self, phase: Phase, ps: int) -> None:
        """BSY for so long, and then `phase`. DRDY says nothing meanwhile (5.14); like most drives
        this one leaves it set, save in a reset.
        """
        state = self.state
        state.status = BSY if phase is Phase.DIAGNOSE else BSY | self.IDLE_STATUS & DRDY
        state.phase = phase
        self._timer.arm(self.clock.now_ps + ps)

    def _offer(self, data: bytes | bytearray, *, interrupt: bool = True) -> None:
        """DRQ with a block for the host to read."""
        state = self.state
        state.buffer, state.pos = bytearray(data), 0
        state.phase = Phase.DATA_IN
        self._data_request(interrupt)

    def _accept(self, length_bytes: int, *, interrupt: bool) -> None:
        """DRQ for a block from the host."""
        state = self.state
        state.buffer, state.pos = bytearray(length_bytes), 0
        state.phase = Phase.DATA_OUT
        self._data_request(interrupt)

    def _data_request(self, interrupt: bool) -> None:
        state = self.state
        state.status = self.IDLE_STATUS | DRQ
        if interrupt:
            state.intrq = 1

    def _done(self) -> None:
        """Success, with an interrupt."""
        state = self.state
        self._drop()
        state.phase = Phase.IDLE
        state.status = self.IDLE_STATUS
        state.error = 0
        state.intrq = 1
        self._end_request()

    def _idle(self, status: str = OK) -> None:
        """The end of a command that was told of before its last block."""
        state = self.state
        state.phase = Phase.IDLE
        state.status = self.IDLE_STATUS
        self._end_request(status)

    def _fail(self, error: int = ABRT) -> None:
        """An error, with an interrupt."""
        state = self.state
        self._drop()
        self._timer.cancel()
        state.phase = Phase.IDLE
        state.status = self.IDLE_STATUS | ERR
        state.error = error
        state.intrq = 1
        self._end_request(self.error_name(error))

    def _request_dma(self, ps: int) -> None:
        self._busy(Phase.DMA, ps)

    # -- time ------------------------------------------------------------------------------------

    def _due(self) -> None:
        match self.state.phase:
            case Phase.FINISH:
                self._done()
            case Phase.DMA:
                self._dma_due()
            case Phase.RESET:
                self._signature(self.state)
                self.settings_to_default()
            case Phase.DIAGNOSE:
                self._signature(self.state)
                self.state.intrq = 1
                self._end_request()
            case phase:
                try:
                    self.proceed(phase)
                except DiskError:
                    self.medium_error()
        self._changed()

    def proceed(self, phase: Phase) -> None:
        """The timer of one of the drive's own phases."""

    # -- DMA -------------------------------------------------------------------------------------

    def _dma_due(self) -> None:
        assert self._master is not None
        self.state.phase = Phase.DMA_WAIT
        self._master.ready(self)

    def hurry(self) -> None:
        """The bus master is being stopped: move now what is under way."""
        if self.state.phase is Phase.DMA:
            self._timer.cancel()
            self._dma_due()

    def resume(self) -> None:
        """The bus master has been started."""
        if self.state.phase is Phase.DMA_WAIT:
            self._request_dma(COMMAND_PS)

    @property
    def dma_bytes(self) -> int:
        """Length of the transfer."""
        raise NotImplementedError

    @property
    def dma_to_memory(self) -> bool:
        """Its direction."""
        raise NotImplementedError

    def dma_read(self, length_bytes: int) -> bytes | memoryview:
        """The first bytes of the transfer, for memory; may raise DiskError."""
        raise NotImplementedError

    def dma_write(self, data: bytes) -> None:
        """The first bytes of the transfer, from memory; fewer than `dma_bytes` if it is short."""
        raise NotImplementedError

    def medium_error(self) -> None:
        """The medium could not be read or written: the command ends so."""
        raise NotImplementedError

    def dma_done(self) -> None:
        """Everything has been moved."""
        if self.state.phase is Phase.DMA_WAIT:
            self._done()

    def dma_short(self) -> None:
        """The bus master had no room for all: the command ends without an interrupt."""
        self._drop()
        self._idle(SHORT)
