"""82371SB (PIIX3) function 1: bus-master IDE controller (290550-002, 2.3 and 2.7).

Two channels at the legacy ports, IRQ 14 and 15, and a scatter/gather DMA engine for each. The
engine moves a command's data at one moment, when the drive is ready. Deliberately not modelled:
the timings (IDETIM is stored; its decode enable bit works) and what the chip does with a strobe of
the wrong direction (the command's direction counts, not RWCON's).

A descriptor table that is too short ends the command without an interrupt, as the Bus Master IDE
specification's table of status bits has it; stopping the engine during a transfer lets the transfer
finish first. A table lies in one 64-KiB block, so it has at most 8,192 entries: the engine gives up
with ERR after that many. It fetches as many entries at once as there are pages to be moved.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from struct import Struct
from typing import Any, Final

from workbench.block.errors import DiskError
from workbench.core.bus import Window
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import RO, W1C, Field, Reg, RegBank, RegMap, on_write
from workbench.core.spans import Spans, pairs, spans_of
from workbench.core.state import sized
from workbench.hw.ata.channel import Channel, ChannelState
from workbench.hw.ata.drive import Drive
from workbench.hw.decode import MovableWindow
from workbench.hw.pci.config import DEVSEL_MEDIUM, IOSE, Bar, PciState, config_map
from workbench.hw.pci.function import PciFunction

__all__ = ["BMIDE_MAP", "IDETIM", "BusMasterState", "PiixIde", "PiixIdeState"]

LEGACY: Final = ((0x1F0, 0x3F6), (0x170, 0x376))
CHANNELS: Final = ("primary", "secondary")
MOST_DESCRIPTORS: Final = 0x10000 // 8
EOT: Final = 1 << 31
DESCRIPTOR: Final = Struct("<II")  # address; byte count and EOT
PAGE_BYTES: Final = 4096
SSBM: Final = 1
BMIDEA, BMERR, IDEINTS = 1, 2, 4
IDE_DECODE: Final = 1 << 15

IDETIM = tuple(
    Reg(
        f"IDETIM{'PS'[n]}", 0x40 + 2 * n, 2,
        fields=(
            Field("TIME0", 0),
            Field("IE0", 1),
            Field("PPE0", 2),
            Field("DTE0", 3),
            Field("TIME1", 4),
            Field("IE1", 5),
            Field("PPE1", 6),
            Field("DTE1", 7),
            Field("RTC", 8, 2),
            Field("ISP", 12, 2),
            Field("SITRE", 14),
            Field("IDE", 15),
        ),
        ref="82371SB 2.3",
        index=n,
        attr="idetim",
    )
    for n in range(2)
)  # fmt: skip
SIDETIM = Reg("SIDETIM", 0x44, 1, ref="82371SB 2.3")

BMIC = tuple(
    Reg(
        f"BMIC{'PS'[n]}", 8 * n, 1,
        fields=(Field("SSBM", 0), Field("RWCON", 3)),
        ref="82371SB 2.7", index=n, attr="bmic",
    )
    for n in range(2)
)  # fmt: skip
BMIS = tuple(
    Reg(
        f"BMIS{'PS'[n]}", 8 * n + 2, 1,
        fields=(
            Field("BMIDEA", 0, access=RO),
            Field("ERR", 1, access=W1C),
            Field("IDEINTS", 2, access=W1C),
            Field("DMA0CAP", 5),
            Field("DMA1CAP", 6),
        ),
        ref="82371SB 2.7", index=n, attr="bmis",
    )
    for n in range(2)
)  # fmt: skip
BMIDTP = tuple(
    Reg(
        f"BMIDTP{'PS'[n]}", 8 * n + 4, 4,
        fields=(Field("DTBA", 2, 30),),
        ref="82371SB 2.7", index=n, attr="bmidtp",
    )
    for n in range(2)
)  # fmt: skip

BMIDE_MAP = RegMap("bmide", 16, (*BMIC, *BMIS, *BMIDTP), ref="82371SB 2.7")


@dataclass(slots=True)
class BusMasterState:
    """The registers behind BAR4, and the level of each channel's INTRQ."""

    bmic: list[int] = sized(2)
    bmis: list[int] = sized(2)
    bmidtp: list[int] = sized(2)


@dataclass(slots=True)
class PiixIdeState(PciState):
    """Configuration space, bus master, channels with their drives."""

    idetim: list[int] = sized(2)
    sidetim: int = 0
    master: BusMasterState = field(default_factory=BusMasterState)
    channels: list[ChannelState] = field(
        default_factory=lambda: [ChannelState(), ChannelState()], metadata={"length": 2}
    )


class BusMasterRegs(RegBank[BusMasterState]):
    """The registers behind BAR4."""

    MAP = BMIDE_MAP
    STATE = BusMasterState

    def __init__(self, ide: PiixIde, name: str, state: BusMasterState) -> None:
        self._ide = ide
        super().__init__(name, state=state)

    @on_write(*BMIC)
    def _command(self, n: int, old: int, new: int) -> None:
        if (old ^ new) & SSBM:
            self._ide.start_stop(n, bool(new & SSBM))


class _Engine:
    """The DMA engine of one channel."""

    def __init__(self, ide: PiixIde, number: int) -> None:
        self._ide = ide
        self._number = number

    def ready(self, drive: Drive) -> None:
        """A drive asks; served if the engine is running."""
        if self._ide.state.master.bmis[self._number] & BMIDEA:
            self._transfer(drive)

    def _transfer(self, drive: Drive) -> None:
        master, n = self._ide.state.master, self._number
        dma = self._ide.dma
        wanted = drive.dma_bytes
        if not dma.allowed and drive.dma_to_memory:
            # No master, no table and no end of it: the data go nowhere, the drive is content.
            dma.refuse()
            drive.dma_done()
            return
        spans, total, ended = self._spans(wanted)
        try:
            if drive.dma_to_memory:
                dma.scatter(spans, drive.dma_read(min(total, wanted)))
            else:
                drive.dma_write(b"".join(dma.read(gpa, length) for gpa, length in pairs(spans)))
        except DiskError:
            drive.medium_error()
            return
        if total < wanted:
            master.bmis[n] &= ~BMIDEA
            if not ended:
                master.bmis[n] |= BMERR
            drive.dma_short()
            return
        if ended and total == wanted:
            master.bmis[n] &= ~BMIDEA
        drive.dma_done()

    def _spans(self, wanted: int) -> tuple[Spans, int, bool]:
        """Where the transfer goes, bytes of all entries read, whether the last of them was the
        table's last.
        """
        table = self._ide.state.master.bmidtp[self._number]
        block = table & ~0xFFFF
        dma = self._ide.dma
        spans = spans_of(())
        total = 0
        read = 0
        while read < MOST_DESCRIPTORS:
            at = table + 8 * read & 0xFFFF
            count = -(-(wanted - total) // PAGE_BYTES)  # if each is a page: most drivers' tables
            count = max(1, min(count, (0x10000 - at) // 8, MOST_DESCRIPTORS - read))
            read += count
            for gpa, word in DESCRIPTOR.iter_unpack(dma.read(block | at, 8 * count)):
                length = word & 0xFFFE or 0x10000
                spans.append(gpa & ~1)
                spans.append(min(length, wanted - total))
                total += length
                if word & EOT or total >= wanted:
                    return spans, total, bool(word & EOT)
        return spans, total, False


class PiixIde(PciFunction[PiixIdeState]):
    """IDE function 8086:7010. `channels` are the drives, `irqs` ISA interrupts 14 and 15."""

    MAP = config_map(
        "piix3_ide",
        vendor=0x8086,
        device=0x7010,
        class_code=0x010180,
        extra=(*IDETIM, SIDETIM),
        ref="82371SB 2.3",
    )
    STATE = PiixIdeState
    BARS = (Bar(4, 16, io=True),)
    STATUS_FIXED = DEVSEL_MEDIUM | 1 << 7  # fast back-to-back
    COMMAND_WRITABLE = 0x5  # IOSE, BME

    def __init__(
        self,
        channels: Sequence[Sequence[Drive | None]],
        clock: Clock,
        irqs: tuple[IrqLine, IrqLine],
        name: str = "piix3_ide",
        *,
        decoded: bool = False,
    ) -> None:
        """`decoded`: reset leaves IDETIM.IDE set, as UEFI firmware written for QEMU expects it."""
        # Wires
        self._idetim_reset = IDE_DECODE if decoded else 0
        self.irqs = irqs
        state = PiixIdeState()
        self.channels = tuple(
            Channel(
                f"ide{n}",
                channels[n],
                clock,
                partial(self._intrq, n),
                _Engine(self, n),
                state.channels[n],
                f"{name}.",
            )
            for n in range(2)
        )
        self.master = BusMasterRegs(self, f"{name}.master", state.master)
        self.request_handles = tuple(channel.requests for channel in self.channels)
        # Book-keeping
        self._legacy: list[tuple[MovableWindow, MovableWindow]] = []
        # State
        super().__init__(name, state=state)

    # -- life ------------------------------------------------------------------------------------

    def _init_state(self, state: PiixIdeState) -> None:
        super()._init_state(state)
        state.idetim[:] = [self._idetim_reset] * 2
        for channel, own in zip(self.channels, state.channels, strict=True):
            channel.power_on(own)

    def set_state(self, state: PiixIdeState) -> None:
        """Replace the state of all banks and drives."""
        super().set_state(state)
        self.master.set_state(state.master)
        for channel, own in zip(self.channels, state.channels, strict=True):
            channel.set_state(own)

    def _check_values(self, state: PiixIdeState) -> None:
        super()._check_values(state)
        self.master._check_values(state.master)

    def reset(self) -> None:
        """PCI reset, which the cables pass on to the drives."""
        for channel in self.channels:
            channel.stop()
        super().reset()
        for channel in self.channels:
            channel.sync_irq()

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; the interrupts get their levels without edges."""
        super().restore(data)
        for line, channel in zip(self.irqs, self.channels, strict=True):
            line.restore(channel.intrq)

    def connected(self) -> None:
        """Put the registers behind BAR4 and make the legacy windows."""
        assert self.port is not None
        self.add_bar(4, self.master.read, self.master.write, name="bmide", regmap=BMIDE_MAP)
        for channel, (command, control) in zip(self.channels, LEGACY, strict=True):
            block = Window.of(channel, self.name, command, name=channel.name)
            block.read_block, block.write_block = channel.read_block, channel.write_block
            other = Window.of(channel.control, self.name, control, name=channel.control.name)
            self._legacy.append(
                (MovableWindow(self.port.pio, block), MovableWindow(self.port.pio, other))
            )

    def post(self) -> None:
        """What firmware does: switch on the decoding of both channels."""
        for reg in IDETIM:
            self.write(reg.offset, 2, IDE_DECODE)

    # -- decoding and interrupts -----------------------------------------------------------------

    def decode_changed(self) -> None:
        """The legacy ports answer while COMMAND.IOSE and the channel's IDETIM.IDE are set."""
        for n, windows in enumerate(self._legacy):
            on = self.state.command & IOSE and self.state.idetim[n] & IDE_DECODE
            for window, base in zip(windows, LEGACY[n], strict=True):
                window.place(base if on else None)

    @on_write(*IDETIM)
    def _write_idetim(self, n: int, old: int, new: int) -> None:
        if (old ^ new) & IDE_DECODE:
            self.decode_changed()

    def _intrq(self, n: int, level: bool) -> None:
        """INTRQ of a channel; its rising edge is kept in BMIS."""
        line = self.irqs[n]
        if level and not line.level:
            self.state.master.bmis[n] |= IDEINTS
        line.set(level)

    # -- bus master ------------------------------------------------------------------------------

    def start_stop(self, n: int, start: bool) -> None:
        """SSBM of a channel changes."""
        bmis = self.state.master.bmis
        drives = [drive for drive in self.channels[n].drives if drive is not None]
        if start:
            bmis[n] |= BMIDEA
            for drive in drives:
                drive.resume()
        else:
            for drive in drives:
                drive.hurry()
            bmis[n] &= ~BMIDEA
        self.channels[n].sync_irq()
