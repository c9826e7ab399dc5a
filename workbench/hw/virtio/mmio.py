"""Virtio over MMIO (Virtual I/O Device 1.2, 4.2), version 2, or version 1 for legacy drivers.

A window of 512 bytes anywhere in memory and one level-triggered interrupt. Version 1 has its own
queue registers (4.2.4): page size, alignment and page number. Deliberately not modelled: shared
memory regions (SHMLen reads as all ones, as it must without any).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from workbench.core.bus import Window
from workbench.core.irq import IrqLine
from workbench.core.regs import RO, WO, Field, Reg, RegBank, RegMap, on_command, on_read
from workbench.core.spans import Spans, pairs
from workbench.core.state import StateError
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState
from workbench.hw.virtio.queue import Memory
from workbench.hw.virtio.region import Region
from workbench.hw.virtio.split import legacy_layout

__all__ = ["MmioState", "SystemMemory", "VirtioMmio"]

MAGIC: Final = 0x74726976
VENDOR: Final = 0x554D4551  # what drivers know from the emulator where this transport began
CONFIG_AT: Final = 0x100
WINDOW_BYTES: Final = 0x200
INT_QUEUE, INT_CONFIG = 1, 2

REF = "VIRTIO 1.2 4.2.2"
LREF = "VIRTIO 1.2 4.2.4"
STATUS_FIELDS = (
    Field("ACKNOWLEDGE", 0),
    Field("DRIVER", 1),
    Field("DRIVER_OK", 2),
    Field("FEATURES_OK", 3),
    Field("DEVICE_NEEDS_RESET", 6),
    Field("FAILED", 7),
)
VERSION = Reg("Version", 0x004, 4, 2, RO, ref=REF)
DEVICE_ID = Reg("DeviceID", 0x008, 4, access=RO, ref=REF)
DEVICE_FEATURES = Reg("DeviceFeatures", 0x010, 4, access=RO, ref=REF)
DEVICE_FEATURES_SEL = Reg("DeviceFeaturesSel", 0x014, 4, access=WO, ref=REF)
DRIVER_FEATURES = Reg("DriverFeatures", 0x020, 4, access=WO, ref=REF)
DRIVER_FEATURES_SEL = Reg("DriverFeaturesSel", 0x024, 4, access=WO, ref=REF)
QUEUE_SEL = Reg("QueueSel", 0x030, 4, access=WO, ref=REF)
QUEUE_NUM_MAX = Reg("QueueNumMax", 0x034, 4, access=RO, ref=REF)
QUEUE_NUM = Reg("QueueNum", 0x038, 4, access=WO, ref=REF)
QUEUE_NOTIFY = Reg("QueueNotify", 0x050, 4, access=WO, ref=REF)
INTERRUPT_FIELDS = (Field("QUEUE", 0), Field("CONFIG", 1))
INTERRUPT_STATUS = Reg("InterruptStatus", 0x060, 4, access=RO, fields=INTERRUPT_FIELDS, ref=REF)
INTERRUPT_ACK = Reg("InterruptACK", 0x064, 4, access=WO, fields=INTERRUPT_FIELDS, ref=REF)
STATUS = Reg("Status", 0x070, 4, fields=STATUS_FIELDS, ref=REF)

# Version 2
QUEUE_READY = Reg("QueueReady", 0x044, 4, ref=REF)
QUEUE_PARTS = tuple(
    Reg(f"Queue{part}{half}", at + 4 * n, 4, access=WO, index=2 * i + n, ref=REF)
    for i, (part, at) in enumerate((("Desc", 0x080), ("Driver", 0x090), ("Device", 0x0A0)))
    for n, half in enumerate(("Low", "High"))
)
SHM_SEL = Reg("SHMSel", 0x0AC, 4, access=WO, ref=REF)
QUEUE_RESET = Reg("QueueReset", 0x0C0, 4, ref=REF)
CONFIG_GENERATION = Reg("ConfigGeneration", 0x0FC, 4, access=RO, ref=REF)

# Version 1
GUEST_PAGE_SIZE = Reg("GuestPageSize", 0x028, 4, access=WO, ref=LREF)
QUEUE_ALIGN = Reg("QueueAlign", 0x03C, 4, access=WO, ref=LREF)
QUEUE_PFN = Reg("QueuePFN", 0x040, 4, ref=LREF)

_COMMON = (
    Reg("MagicValue", 0x000, 4, MAGIC, RO, ref=REF), VERSION, DEVICE_ID,
    Reg("VendorID", 0x00C, 4, VENDOR, RO, ref=REF), DEVICE_FEATURES, DEVICE_FEATURES_SEL,
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, QUEUE_SEL, QUEUE_NUM_MAX, QUEUE_NUM, QUEUE_NOTIFY,
    INTERRUPT_STATUS, INTERRUPT_ACK, STATUS,
)  # fmt: skip
MAP = RegMap(
    "virtio-mmio",
    CONFIG_AT,
    (
        *_COMMON, QUEUE_READY, *QUEUE_PARTS, QUEUE_RESET,
        SHM_SEL,
        Reg("SHMLenLow", 0x0B0, 4, 0xFFFF_FFFF, RO, ref=REF),  # there is no such region
        Reg("SHMLenHigh", 0x0B4, 4, 0xFFFF_FFFF, RO, ref=REF),
        Reg("SHMBaseLow", 0x0B8, 4, 0xFFFF_FFFF, RO, ref=REF),
        Reg("SHMBaseHigh", 0x0BC, 4, 0xFFFF_FFFF, RO, ref=REF),
        CONFIG_GENERATION,
    ),
    REF,
)  # fmt: skip
LEGACY_MAP = RegMap(
    "virtio-mmio-legacy", CONFIG_AT, (*_COMMON, GUEST_PAGE_SIZE, QUEUE_ALIGN, QUEUE_PFN), LREF
)


class SystemMemory:
    """Guest memory for a device that is no bus master of PCI; it may always access it."""

    allowed = True

    def __init__(
        self,
        name: str,
        read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], None],
        contains: Callable[[int, int], bool],
        trace: Callable[[str, int, int, bool], None] = lambda name, gpa, size, is_write: None,
    ) -> None:
        """`trace` is `machine.trace_dma`."""
        self._name = name
        self._read = read
        self._write = write
        self.contains = contains
        self._trace = trace

    def read(self, gpa: int, length_bytes: int) -> bytes:
        """Bytes of guest memory."""
        data = self._read(gpa, length_bytes)
        self._trace(self._name, gpa, length_bytes, False)
        return data

    def write(self, gpa: int, data: bytes) -> None:
        """Write guest memory."""
        self._write(gpa, data)
        self._trace(self._name, gpa, len(data), True)

    def scatter(self, spans: Spans, data: bytes | memoryview) -> None:
        """Write data into spans, one after the other."""
        at = 0
        for gpa, length_bytes in pairs(spans):
            self.write(gpa, bytes(data[at : at + length_bytes]))
            at += length_bytes


@dataclass(slots=True)
class MmioState:
    """What the transport keeps."""

    device_features_sel: int = 0
    driver_features_sel: int = 0
    queue_sel: int = 0
    interrupt_status: int = 0
    guest_page_size: int = 0
    queue_align: int = 4096

    def __post_init__(self) -> None:
        numbers = (
            self.device_features_sel,
            self.driver_features_sel,
            self.queue_sel,
            self.interrupt_status,
            self.guest_page_size,
            self.queue_align,
        )
        if any(not 0 <= n < 1 << 32 for n in numbers):
            raise ValueError(f"expected numbers of 32 bits, not {numbers!r}")


class VirtioMmio(RegBank[MmioState]):
    """A virtio device in memory space; its name is the device's."""

    STATE = MmioState

    def __init__(
        self,
        virtio: VirtioDevice[Any],
        memory: Memory,
        irq: IrqLine,
        *,
        base: int = 0,
        legacy: bool = False,
    ) -> None:
        """`legacy` makes it version 1."""
        # Wires
        self.virtio: VirtioDevice[VirtioState] = virtio
        self.base = base
        self.legacy = legacy
        virtio.modern = not legacy
        self.request_handles = (virtio.requests,)
        self._memory = memory
        self._irq = irq
        # State
        super().__init__(virtio.name, regmap=LEGACY_MAP if legacy else MAP)
        self._region = Region(self.map.name, WINDOW_BYTES, ((0, self), (CONFIG_AT, virtio)))
        virtio.attach(self)

    def windows(self) -> tuple[Window, ...]:
        """The window in memory space."""
        region = self._region
        return (
            Window(
                self.name, self.name, self.base, WINDOW_BYTES, region.read, region.write, region.map
            ),
        )

    # -- state -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset of device and transport."""
        super().reset()
        self.virtio.reset()
        self._irq.set(False)

    def save(self) -> dict[str, Any]:
        """Both parts."""
        return {"mmio": super().save(), "virtio": self.virtio.save()}

    def restore(self, data: dict[str, Any]) -> None:
        """Both parts; raises StateError."""
        if not isinstance(data, dict) or data.keys() != {"mmio", "virtio"}:
            raise StateError(f"{self.name}: expected the keys mmio and virtio")
        self.virtio.restore(data["virtio"])
        super().restore(data["mmio"])
        self._irq.restore(bool(self.state.interrupt_status))

    # -- the device ------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """Guest memory, for the queues."""
        return self._memory

    def queue_interrupt(self, index: int) -> None:
        """Used buffers in a queue."""
        self._raise(INT_QUEUE)

    def config_interrupt(self) -> None:
        """Configuration or DEVICE_NEEDS_RESET changed."""
        self._raise(INT_CONFIG)

    def _raise(self, bits: int) -> None:
        self.state.interrupt_status |= bits
        self._irq.set(True)

    def _index(self) -> int | None:
        index = self.state.queue_sel
        return index if index < len(self.virtio.queue_sizes) else None

    # -- registers -------------------------------------------------------------------------------

    @on_read(VERSION)
    def _version(self) -> int:
        return 1 if self.legacy else 2

    @on_read(DEVICE_ID)
    def _device_id(self) -> int:
        return self.virtio.TYPE

    @on_read(DEVICE_FEATURES)
    def _device_features(self) -> int:
        select = self.state.device_features_sel
        return self.virtio.offered >> 32 * select & 0xFFFF_FFFF if select < 2 else 0

    @on_command(DEVICE_FEATURES_SEL)
    def _set_device_sel(self, value: int) -> None:
        self.state.device_features_sel = value & 0xFFFF_FFFF

    @on_command(DRIVER_FEATURES_SEL)
    def _set_driver_sel(self, value: int) -> None:
        self.state.driver_features_sel = value & 0xFFFF_FFFF

    @on_command(DRIVER_FEATURES)
    def _driver_features(self, value: int) -> None:
        select = self.state.driver_features_sel
        if select > 1:
            return
        kept = self.virtio.state.driver_features & ~(0xFFFF_FFFF << 32 * select)
        features = kept | (value & 0xFFFF_FFFF) << 32 * select
        self.virtio.accept(features & self.virtio.offered if self.legacy else features)

    @on_command(QUEUE_SEL)
    def _set_queue_sel(self, value: int) -> None:
        self.state.queue_sel = value & 0xFFFF_FFFF

    @on_read(QUEUE_NUM_MAX)
    def _queue_num_max(self) -> int:
        index = self._index()
        return 0 if index is None else self.virtio.queue_sizes[index]

    @on_command(QUEUE_NUM)
    def _set_queue_num(self, value: int) -> None:
        index = self._index()
        if index is not None and not self.virtio.state.queues[index].ready:
            self.virtio.state.queues[index].size = min(value & 0xFFFF_FFFF, 0xFFFF)

    @on_read(QUEUE_READY)
    def _queue_ready(self) -> int:
        index = self._index()
        return 0 if index is None else int(self.virtio.state.queues[index].ready)

    @on_command(QUEUE_READY)
    def _set_queue_ready(self, value: int) -> None:
        index = self._index()
        if index is not None:
            self.virtio.queue_ready(index, bool(value & 1))

    @on_command(*QUEUE_PARTS)
    def _set_part(self, part: int, value: int) -> None:
        index = self._index()
        if index is not None:
            self.virtio.set_queue_part(index, part, value)

    @on_read(QUEUE_RESET)
    def _queue_reset(self) -> int:
        return 0

    @on_command(QUEUE_RESET)
    def _set_queue_reset(self, value: int) -> None:
        index = self._index()
        if index is not None and value & 1 and self.virtio.has(spec.F_RING_RESET):
            self.virtio.queue_reset(index)

    @on_command(QUEUE_NOTIFY)
    def _notify(self, value: int) -> None:
        self.virtio.kick(value & 0xFFFF)

    @on_read(INTERRUPT_STATUS)
    def _interrupt_status(self) -> int:
        return self.state.interrupt_status

    @on_command(INTERRUPT_ACK)
    def _interrupt_ack(self, value: int) -> None:
        self.state.interrupt_status &= ~value
        self._irq.set(bool(self.state.interrupt_status))

    @on_read(STATUS)
    def _status(self) -> int:
        return self.virtio.state.status

    @on_command(STATUS)
    def _set_status(self, value: int) -> None:
        if not value & 0xFF:
            # Drivers set the page size once, before they reset the device.
            self.set_state(MmioState(guest_page_size=self.state.guest_page_size))
            self._irq.set(False)
        self.virtio.set_status(value & 0xFF)

    @on_read(CONFIG_GENERATION)
    def _generation(self) -> int:
        return self.virtio.state.generation

    @on_command(SHM_SEL)
    def _set_shm_sel(self, value: int) -> None:
        """No device has shared memory: all regions are missing."""

    # -- version 1 -------------------------------------------------------------------------------

    @on_command(GUEST_PAGE_SIZE)
    def _guest_page_size(self, value: int) -> None:
        self.state.guest_page_size = value & 0xFFFF_FFFF

    @on_command(QUEUE_ALIGN)
    def _queue_align(self, value: int) -> None:
        self.state.queue_align = value & 0xFFFF_FFFF

    @on_read(QUEUE_PFN)
    def _queue_pfn(self) -> int:
        index = self._index()
        page = self.state.guest_page_size
        if index is None or not page or not self.virtio.state.queues[index].ready:
            return 0
        return self.virtio.state.queues[index].desc // page & 0xFFFF_FFFF

    @on_command(QUEUE_PFN)
    def _set_queue_pfn(self, value: int) -> None:
        index = self._index()
        if index is None:
            return
        queue, state = self.virtio.state.queues[index], self.state
        queue.desc, queue.driver, queue.device = legacy_layout(
            queue.size, (value & 0xFFFF_FFFF) * state.guest_page_size, max(state.queue_align, 1)
        )
        self.virtio.queue_ready(index, False)
        self.virtio.queue_ready(index, bool(value))
