"""One ATA channel: up to two drives on a cable, their task files, and INTRQ.

ATA/ATAPI-7 volume 2, 5 and 9. Both drives take what is written to the command block; the selected
one answers. Registers of the drive in bus address 1 that is not there are read from drive 0 (9.16);
those of an empty cable read as zeros, where the standard leaves all but bit 7 open. A drive that is
busy ignores the command block, the Device register excepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from workbench.core.clock import Clock
from workbench.core.polls import Steady
from workbench.core.regs import RegBank, on_command, on_read
from workbench.core.requests import Requests, RequestState
from workbench.hw.ata.drive import (
    EXECUTE_DEVICE_DIAGNOSTIC,
    BusMaster,
    Drive,
    DriveState,
)
from workbench.hw.ata.registers import (
    ALTERNATE_STATUS,
    BSY,
    COMMAND,
    COMMAND_BLOCK,
    CONTROL_BLOCK,
    DATA,
    DATA32,
    DEV,
    DEVICE,
    DEVICE_CONTROL,
    DEVICE_OBSOLETE,
    ERROR,
    FEATURES,
    HOB,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    NIEN,
    SECTOR_COUNT,
    SRST,
    STATUS,
)

__all__ = ["Channel", "ChannelState"]

EMPTY: Final = 0x00
DEVICE_RESET: Final = 0x08


@dataclass(slots=True)
class ChannelState:
    """Device Control, the selected drive, and both drives."""

    device_control: int = 0
    selected: int = 0
    drives: list[DriveState] = field(
        default_factory=lambda: [DriveState(), DriveState()], metadata={"length": 2}
    )
    requests: RequestState = field(default_factory=RequestState)

    def __post_init__(self) -> None:
        """Bounds for what a snapshot says; raises ValueError."""
        if not 0 <= self.device_control <= 0xFF or self.selected not in (0, 1):
            raise ValueError(f"expected a channel's registers, not {self!r:.80}")


class Channel(RegBank[ChannelState]):
    """The command block; `control` is the bank of the control block."""

    MAP = COMMAND_BLOCK
    STATE = ChannelState

    def __init__(
        self,
        name: str,
        drives: Sequence[Drive | None],
        clock: Clock,
        interrupt: Callable[[bool], None],
        master: BusMaster,
        state: ChannelState,
        label: str = "",
    ) -> None:
        """`interrupt(level)` is INTRQ; `label` makes the names of timers unique."""
        # Wires
        self.drives = tuple(drives)
        self._interrupt = interrupt
        # Book-keeping
        self._drive: Drive | None = None
        self.requests = Requests(name, state.requests)
        for drive in self.drives:
            if drive is not None:
                drive.wire(clock, f"{label}{name}", self.sync_irq, master, self.requests)
        # State
        self.control = ControlBlock(self, f"{name}.control")
        super().__init__(name, state=state)

    def set_state(self, state: ChannelState) -> None:
        """Replace the state; the drives get theirs."""
        super().set_state(state)
        self.requests.state = state.requests
        for drive, own in zip(self.drives, state.drives, strict=True):
            if drive is not None:
                drive.state = own
        self.control.state = state
        self._select()

    def power_on(self, state: ChannelState) -> None:
        """Fill in what hardware reset leaves; requests are counted on."""
        state.requests = self.requests.state
        for drive, own in zip(self.drives, state.drives, strict=True):
            if drive is not None:
                drive.power_on(own)

    def stop(self) -> None:
        """Nothing is under way any more."""
        for drive in self.drives:
            if drive is not None:
                drive.stop()

    # -- selection and interrupt -----------------------------------------------------------------

    def _select(self) -> None:
        """The drive that answers, None for the empty place of bus address 1 or an empty cable."""
        self._drive = self.drives[self.state.selected]

    def _shown(self) -> DriveState | None:
        """Whose registers are read; None where there are none."""
        drive = self._drive
        if drive is None and self.state.selected:
            drive = self.drives[0]
            if drive is not None and drive.SIGNATURE:
                return DriveState(error=0)  # a packet device answers with zeros for drive 1
        return None if drive is None else drive.state

    @property
    def intrq(self) -> bool:
        """Level of INTRQ."""
        drive = self._drive
        return bool(
            drive is not None and drive.state.intrq and not self.state.device_control & NIEN
        )

    def sync_irq(self) -> None:
        """Drive INTRQ from the state."""
        self._interrupt(self.intrq)

    # -- command block ---------------------------------------------------------------------------

    @on_read(DATA)
    def _read_data(self) -> int:
        return 0 if self._drive is None else self._drive.read_data(2)

    @on_read(DATA32)
    def _read_data32(self) -> int:
        return 0 if self._drive is None else self._drive.read_data(4)

    @on_command(DATA)
    def _write_data(self, value: int) -> None:
        if self._drive is not None:
            self._drive.write_data(2, value & 0xFFFF)
            self.sync_irq()

    @on_command(DATA32)
    def _write_data32(self, value: int) -> None:
        if self._drive is not None:
            self._drive.write_data(4, value & 0xFFFF_FFFF)
            self.sync_irq()

    def read_block(self, offset: int, size: int, count: int) -> bytes | None:
        """REP INS: the bytes of `count` reads of the Data register; None for other registers."""
        if offset or size == 1:
            return None
        drive = self._drive
        return bytes(size * count) if drive is None else drive.read_data_block(size * count)

    def write_block(self, offset: int, size: int, data: bytes) -> bool:
        """REP OUTS, likewise; False for other registers."""
        if offset or size == 1:
            return False
        if self._drive is not None:
            self._drive.write_data_block(data)
            self.sync_irq()
        return True

    @on_read(ERROR)
    def _read_error(self) -> int:
        shown = self._shown()
        return EMPTY if shown is None else shown.error

    @on_read(SECTOR_COUNT)
    def _read_count(self) -> int:
        return self._register("count")

    @on_read(LBA_LOW)
    def _read_lbal(self) -> int:
        return self._register("lbal")

    @on_read(LBA_MID)
    def _read_lbam(self) -> int:
        return self._register("lbam")

    @on_read(LBA_HIGH)
    def _read_lbah(self) -> int:
        return self._register("lbah")

    def _register(self, name: str) -> int:
        shown = self._shown()
        if shown is None:
            return EMPTY
        value: int = getattr(shown, name)
        return value >> 8 if self.state.device_control & HOB else value & 0xFF

    @on_read(DEVICE)
    def _read_device(self) -> int:
        shown = self._shown()
        if shown is None:
            return EMPTY
        return shown.device & 0x4F | DEVICE_OBSOLETE | self.state.selected << 4

    @on_command(FEATURES)
    def _write_features(self, value: int) -> None:
        self._write("features", value)

    @on_command(SECTOR_COUNT)
    def _write_count(self, value: int) -> None:
        self._write("count", value)

    @on_command(LBA_LOW)
    def _write_lbal(self, value: int) -> None:
        self._write("lbal", value)

    @on_command(LBA_MID)
    def _write_lbam(self, value: int) -> None:
        self._write("lbam", value)

    @on_command(LBA_HIGH)
    def _write_lbah(self, value: int) -> None:
        self._write("lbah", value)

    def _write(self, name: str, value: int) -> None:
        """Both drives take it; the previous content moves to bits 15:8."""
        self.state.device_control &= ~HOB
        for drive in self.drives:
            if drive is not None and not drive.state.status & BSY:
                state = drive.state
                setattr(state, name, (getattr(state, name) & 0xFF) << 8 | value & 0xFF)

    @on_command(DEVICE)
    def _write_device(self, value: int) -> None:
        state = self.state
        state.device_control &= ~HOB
        state.selected = 1 if value & DEV else 0
        for drive in self.drives:
            if drive is not None and not drive.state.status & BSY:
                drive.state.device = value & 0xFF
        self._select()
        self.sync_irq()

    @on_read(STATUS)
    def _read_status(self) -> int:
        status = self.status()
        if self._drive is not None and self._drive.state.intrq:
            self._drive.state.intrq = 0
            self.sync_irq()
        return status

    def steady(self, offset: int, size: int) -> Steady | None:
        """A driver without interrupts polls Status; reading it once has cleared the interrupt."""
        return Steady(self.status()) if (offset, size) == (STATUS.offset, STATUS.size) else None

    def status(self) -> int:
        """Status without clearing the interrupt."""
        if self._drive is not None:
            return self._drive.state.status
        return EMPTY if self.drives[0] is None else 0

    @on_command(COMMAND)
    def _write_command(self, value: int) -> None:
        value &= 0xFF
        self.state.device_control &= ~HOB
        if value == EXECUTE_DEVICE_DIAGNOSTIC:
            self._diagnose()
        elif self._drive is not None:
            if value == DEVICE_RESET and self._drive.SIGNATURE:
                self._drive.stop()
                self._drive.state.status = 0
            self._drive.write_command(value)
        self.sync_irq()

    def _diagnose(self) -> None:
        """Both execute it, whichever is selected; drive 0 is selected afterwards."""
        present = [drive for drive in self.drives if drive is not None]
        if any(drive.state.status & BSY for drive in present):
            return
        self.state.selected = 0
        self._select()
        for drive in present:
            drive.state.device &= ~DEV
            drive.diagnose()

    # -- control block ---------------------------------------------------------------------------

    def write_control(self, value: int) -> None:
        """Device Control."""
        state = self.state
        old, state.device_control = state.device_control, value & (HOB | SRST | NIEN)
        if (old ^ value) & SRST:
            state.selected = 0
            self._select()
            for drive in self.drives:
                if drive is not None:
                    drive.state.device &= ~DEV
                    drive.soft_reset(bool(value & SRST))
        self.sync_irq()


class ControlBlock(RegBank[ChannelState]):
    """Alternate Status and Device Control of a channel, whose state it shares."""

    MAP = CONTROL_BLOCK
    STATE = ChannelState

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        super().__init__(name)

    @on_read(ALTERNATE_STATUS)
    def _read_alternate(self) -> int:
        return self._channel.status()

    def steady(self, offset: int, size: int) -> Steady | None:
        """Alternate Status, likewise."""
        alternate = (ALTERNATE_STATUS.offset, ALTERNATE_STATUS.size)
        return Steady(self._channel.status()) if (offset, size) == alternate else None

    @on_command(DEVICE_CONTROL)
    def _write_control(self, value: int) -> None:
        self._channel.write_control(value & 0xFF)
