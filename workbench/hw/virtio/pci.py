"""Virtio over PCI, transitional (Virtual I/O Device 1.2, 4.1).

BAR 0 (ports) is the legacy interface of 4.1.4.10, BAR 1 the MSI-X table, BAR 4 the modern one:
common configuration at 0, ISR status at 0x1000, device configuration at 0x2000, notification at
0x3000 with 4 bytes a queue. Either interface can be left out. There is a vector for each queue and
one for configuration changes; without MSI-X, INTx follows ISR status.

BAR 0's registers from 0x14 on depend on whether MSI-X is enabled, and the map of its window
follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from workbench.core.regs import (
    RC,
    RO,
    WO,
    Field,
    Reg,
    RegBank,
    RegMap,
    array,
    on_command,
    on_read,
    on_write,
)
from workbench.core.state import StateError
from workbench.hw.pci.config import Bar, Capability, PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci.msix import Msix, MsixState, capability
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState
from workbench.hw.virtio.queue import Memory
from workbench.hw.virtio.region import Region
from workbench.hw.virtio.split import legacy_layout

__all__ = ["COMMON", "LEGACY", "VirtioPci", "VirtioPciState"]

VENDOR: Final = 0x1AF4
MODERN_ID: Final = 0x1040
MOST_QUEUES: Final = 63  # one vector each, and one for the configuration
LEGACY_BAR, MSIX_BAR, MODERN_BAR = 0, 1, 4
COMMON_AT, ISR_AT, DEVICE_AT, NOTIFY_AT, MODERN_BYTES = 0, 0x1000, 0x2000, 0x3000, 0x4000
NOTIFY_STRIDE: Final = 4
PFN_SHIFT: Final = 12
ISR_QUEUE, ISR_CONFIG = 1, 2
NO_VECTOR: Final = spec.NO_VECTOR

STATUS_FIELDS = (
    Field("ACKNOWLEDGE", 0),
    Field("DRIVER", 1),
    Field("DRIVER_OK", 2),
    Field("FEATURES_OK", 3),
    Field("DEVICE_NEEDS_RESET", 6),
    Field("FAILED", 7),
)
ISR_FIELDS = (Field("QUEUE", 0), Field("CONFIG", 1))

# -- common configuration (4.1.4.3) --------------------------------------------------------------

REF = "VIRTIO 1.2 4.1.4.3"
DEVICE_FEATURE_SELECT = Reg("device_feature_select", 0, 4, ref=REF)
DEVICE_FEATURE = Reg("device_feature", 4, 4, access=RO, ref=REF)
DRIVER_FEATURE_SELECT = Reg("driver_feature_select", 8, 4, ref=REF)
DRIVER_FEATURE = Reg("driver_feature", 12, 4, ref=REF)
CONFIG_MSIX_VECTOR = Reg("config_msix_vector", 16, 2, NO_VECTOR, ref=REF)
NUM_QUEUES = Reg("num_queues", 18, 2, access=RO, ref=REF)
DEVICE_STATUS = Reg("device_status", 20, 1, fields=STATUS_FIELDS, ref="VIRTIO 1.2 2.1")
CONFIG_GENERATION = Reg("config_generation", 21, 1, access=RO, ref=REF)
QUEUE_SELECT = Reg("queue_select", 22, 2, ref=REF)
QUEUE_SIZE = Reg("queue_size", 24, 2, ref=REF)
QUEUE_MSIX_VECTOR = Reg("queue_msix_vector", 26, 2, ref=REF)
QUEUE_ENABLE = Reg("queue_enable", 28, 2, ref=REF)
QUEUE_NOTIFY_OFF = Reg("queue_notify_off", 30, 2, access=RO, ref=REF)
QUEUE_PARTS = tuple(
    Reg(f"queue_{part}_{half}", at + 4 * n, 4, index=2 * i + n, ref=REF)
    for i, (part, at) in enumerate((("desc", 32), ("driver", 40), ("device", 48)))
    for n, half in enumerate(("lo", "hi"))
)
QUEUE_NOTIFY_DATA = Reg("queue_notify_data", 56, 2, access=RO, ref=REF)
QUEUE_RESET = Reg("queue_reset", 58, 2, ref=REF)

COMMON = RegMap(
    "virtio-pci-common",
    64,
    (
        DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE,
        CONFIG_MSIX_VECTOR, NUM_QUEUES, DEVICE_STATUS, CONFIG_GENERATION, QUEUE_SELECT, QUEUE_SIZE,
        QUEUE_MSIX_VECTOR, QUEUE_ENABLE, QUEUE_NOTIFY_OFF, *QUEUE_PARTS, QUEUE_NOTIFY_DATA,
        QUEUE_RESET,
    ),
    REF,
)  # fmt: skip

ISR = Reg("isr_status", 0, 1, access=RC, fields=ISR_FIELDS, ref="VIRTIO 1.2 4.1.4.5")
ISR_MAP = RegMap("virtio-pci-isr", 4, (ISR,), "VIRTIO 1.2 4.1.4.5")

QUEUE_NOTIFY = array(
    "queue_notify", 0, 2, MOST_QUEUES, NOTIFY_STRIDE, access=WO, ref="VIRTIO 1.2 4.1.4.4"
)
NOTIFY = RegMap("virtio-pci-notify", 0x1000, QUEUE_NOTIFY, "VIRTIO 1.2 4.1.4.4")

# -- legacy interface (4.1.4.10) -----------------------------------------------------------------

LREF = "VIRTIO 1.2 4.1.4.10"
L_DEVICE_FEATURES = Reg("device_features", 0, 4, access=RO, ref=LREF)
L_DRIVER_FEATURES = Reg("driver_features", 4, 4, ref=LREF)
L_QUEUE_ADDRESS = Reg("queue_address", 8, 4, ref=LREF)
L_QUEUE_SIZE = Reg("queue_size", 12, 2, access=RO, ref=LREF)
L_QUEUE_SELECT = Reg("queue_select", 14, 2, ref=LREF)
L_QUEUE_NOTIFY = Reg("queue_notify", 16, 2, access=WO, ref=LREF)
L_DEVICE_STATUS = Reg("device_status", 18, 1, fields=STATUS_FIELDS, ref="VIRTIO 1.2 2.1")
L_ISR = Reg("isr_status", 19, 1, access=RC, fields=ISR_FIELDS, ref=LREF)
L_CONFIG_VECTOR = Reg("config_msix_vector", 20, 2, NO_VECTOR, ref=LREF)
L_QUEUE_VECTOR = Reg("queue_msix_vector", 22, 2, NO_VECTOR, ref=LREF)
LEGACY_BYTES, LEGACY_MSIX_BYTES = 20, 24

_LEGACY = (
    L_DEVICE_FEATURES, L_DRIVER_FEATURES, L_QUEUE_ADDRESS, L_QUEUE_SIZE, L_QUEUE_SELECT,
    L_QUEUE_NOTIFY, L_DEVICE_STATUS, L_ISR,
)  # fmt: skip
LEGACY = RegMap("virtio-pci-legacy", LEGACY_BYTES, _LEGACY, LREF)
LEGACY_VECTORS = RegMap(
    "virtio-pci-legacy-msix", LEGACY_MSIX_BYTES, (*_LEGACY, L_CONFIG_VECTOR, L_QUEUE_VECTOR), LREF
)

# -- capabilities (4.1.4) ------------------------------------------------------------------------

CAP_ID: Final = 0x09
CFG_COMMON, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI = 1, 2, 3, 4, 5
CREF = "VIRTIO 1.2 4.1.4"
PCI_CFG_AT: Final = 0x84
PCI_CFG_BAR = Reg("PCI_CFG_BAR", PCI_CFG_AT + 4, 1, ref="VIRTIO 1.2 4.1.4.9")
PCI_CFG_OFFSET = Reg("PCI_CFG_OFFSET", PCI_CFG_AT + 8, 4, ref="VIRTIO 1.2 4.1.4.9")
PCI_CFG_LENGTH = Reg("PCI_CFG_LENGTH", PCI_CFG_AT + 12, 4, ref="VIRTIO 1.2 4.1.4.9")
PCI_CFG_DATA = Reg("PCI_CFG_DATA", PCI_CFG_AT + 16, 4, ref="VIRTIO 1.2 4.1.4.9")


def _capability(name: str, at: int, kind: int, place: int, size: int, notify: bool) -> Capability:
    """A `virtio_pci_cap` that points into BAR 4."""
    regs = [
        Reg(f"{name}_LEN", at + 2, 1, 20 if notify else 16, RO, ref=CREF),
        Reg(f"{name}_TYPE", at + 3, 1, kind, RO, ref=CREF),
        Reg(f"{name}_BAR", at + 4, 1, MODERN_BAR, RO, ref=CREF),
        Reg(f"{name}_OFFSET", at + 8, 4, place, RO, ref=CREF),
        Reg(f"{name}_LENGTH", at + 12, 4, size, RO, ref=CREF),
    ]
    if notify:
        regs.append(Reg(f"{name}_MULTIPLIER", at + 16, 4, NOTIFY_STRIDE, RO, ref=CREF))
    return Capability(name, CAP_ID, at, tuple(regs))


def _capabilities(queues: int, config_bytes: int) -> list[Capability]:
    pci = Capability(
        "PCI_CFG",
        CAP_ID,
        PCI_CFG_AT,
        (
            Reg("PCI_CFG_LEN", PCI_CFG_AT + 2, 1, 20, RO, ref=CREF),
            Reg("PCI_CFG_TYPE", PCI_CFG_AT + 3, 1, CFG_PCI, RO, ref=CREF),
            PCI_CFG_BAR,
            PCI_CFG_OFFSET,
            PCI_CFG_LENGTH,
            PCI_CFG_DATA,
        ),
    )
    return [
        _capability("COMMON_CFG", 0x40, CFG_COMMON, COMMON_AT, COMMON.length, False),
        _capability("ISR_CFG", 0x50, CFG_ISR, ISR_AT, ISR_MAP.length, False),
        _capability("DEVICE_CFG", 0x60, CFG_DEVICE, DEVICE_AT, max(config_bytes, 4), False),
        _capability("NOTIFY_CFG", 0x70, CFG_NOTIFY, NOTIFY_AT, NOTIFY_STRIDE * queues, True),
        pci,
    ]


@dataclass(slots=True)
class CommonState:
    """What the transport keeps for the driver."""

    device_feature_select: int = 0
    driver_feature_select: int = 0
    config_msix_vector: int = NO_VECTOR
    queue_select: int = 0
    queue_vectors: list[int] = field(default_factory=list)
    isr_status: int = 0

    def __post_init__(self) -> None:
        if any(not 0 <= vector <= 0xFFFF for vector in self.queue_vectors):
            raise ValueError(f"expected vectors of 16 bits, not {self.queue_vectors!r:.80}")
        if not 0 <= self.isr_status <= 3:
            raise ValueError(f"expected two bits of ISR status, not {self.isr_status!r}")


@dataclass(slots=True)
class VirtioPciState(PciState):
    """The function; the device saves its own part."""

    pci_cfg_bar: int = 0
    pci_cfg_offset: int = 0
    pci_cfg_length: int = 0
    msix_ctrl: int = 0
    msix: MsixState = field(default_factory=MsixState)
    common: CommonState = field(default_factory=CommonState)


class _Bank(RegBank[CommonState]):
    """What the modern and the legacy bank share; both stand on one state."""

    STATE = CommonState

    def __init__(self, owner: VirtioPci) -> None:
        self.owner = owner
        super().__init__()

    @property
    def device(self) -> VirtioDevice[VirtioState]:
        return self.owner.virtio

    def queue_index(self) -> int | None:
        """The selected queue, None if there is no such queue."""
        index = self.state.queue_select
        return index if index < len(self.device.queue_sizes) else None

    def vector(self) -> int:
        index = self.queue_index()
        return NO_VECTOR if index is None else self.state.queue_vectors[index]

    def set_vector(self, value: int) -> None:
        index = self.queue_index()
        if index is not None:
            self.state.queue_vectors[index] = self.owner.usable_vector(value)


class CommonBank(_Bank):
    """Common configuration structure."""

    MAP = COMMON

    @on_read(DEVICE_FEATURE)
    def _device_feature(self) -> int:
        select = self.state.device_feature_select
        return self.device.offered >> 32 * select & 0xFFFF_FFFF if select < 2 else 0

    @on_read(DRIVER_FEATURE)
    def _read_driver_feature(self) -> int:
        select = self.state.driver_feature_select
        return self.device.state.driver_features >> 32 * select & 0xFFFF_FFFF if select < 2 else 0

    @on_command(DRIVER_FEATURE)
    def _driver_feature(self, value: int) -> None:
        select = self.state.driver_feature_select
        if select < 2:
            kept = self.device.state.driver_features & ~(0xFFFF_FFFF << 32 * select)
            self.device.accept(kept | (value & 0xFFFF_FFFF) << 32 * select)

    @on_write(CONFIG_MSIX_VECTOR)
    def _config_vector(self, old: int, new: int) -> None:
        self.state.config_msix_vector = self.owner.usable_vector(new)

    @on_read(NUM_QUEUES)
    def _num_queues(self) -> int:
        return len(self.device.queue_sizes)

    @on_read(DEVICE_STATUS)
    def _status(self) -> int:
        return self.device.state.status

    @on_command(DEVICE_STATUS)
    def _set_status(self, value: int) -> None:
        self.owner.set_status(value)

    @on_read(CONFIG_GENERATION)
    def _generation(self) -> int:
        return self.device.state.generation

    @on_read(QUEUE_SIZE)
    def _queue_size(self) -> int:
        index = self.queue_index()
        return 0 if index is None else self.device.state.queues[index].size

    @on_command(QUEUE_SIZE)
    def _set_queue_size(self, value: int) -> None:
        index = self.queue_index()
        if index is not None and not self.device.state.queues[index].ready:
            self.device.state.queues[index].size = value & 0xFFFF

    @on_read(QUEUE_MSIX_VECTOR)
    def _queue_vector(self) -> int:
        return self.vector()

    @on_command(QUEUE_MSIX_VECTOR)
    def _set_queue_vector(self, value: int) -> None:
        self.set_vector(value)

    @on_read(QUEUE_ENABLE)
    def _queue_enable(self) -> int:
        index = self.queue_index()
        return 0 if index is None else int(self.device.state.queues[index].ready)

    @on_command(QUEUE_ENABLE)
    def _set_queue_enable(self, value: int) -> None:
        index = self.queue_index()
        if index is not None and value & 0xFFFF == 1:
            self.device.queue_ready(index, True)

    @on_read(QUEUE_NOTIFY_OFF)
    def _notify_off(self) -> int:
        return self.queue_index() or 0

    @on_read(QUEUE_NOTIFY_DATA)
    def _notify_data(self) -> int:
        return self.queue_index() or 0

    @on_read(*QUEUE_PARTS)
    def _part(self, part: int) -> int:
        index = self.queue_index()
        if index is None:
            return 0
        queue = self.device.state.queues[index]
        value = (queue.desc, queue.driver, queue.device)[part >> 1]
        return value >> 32 * (part & 1) & 0xFFFF_FFFF

    @on_command(*QUEUE_PARTS)
    def _set_part(self, part: int, value: int) -> None:
        index = self.queue_index()
        if index is not None:
            self.device.set_queue_part(index, part, value)

    @on_read(QUEUE_RESET)
    def _queue_reset(self) -> int:
        return 0

    @on_command(QUEUE_RESET)
    def _set_queue_reset(self, value: int) -> None:
        index = self.queue_index()
        if index is not None and value & 1 and self.device.has(spec.F_RING_RESET):
            self.device.queue_reset(index)


class IsrBank(_Bank):
    """ISR status; a read clears it and takes INTx back."""

    MAP = ISR_MAP

    @on_read(ISR)
    def _isr(self) -> int:
        return self.owner.take_isr()


class NotifyBank(_Bank):
    """Notification addresses."""

    MAP = NOTIFY

    @on_command(*QUEUE_NOTIFY)
    def _notify(self, index: int, value: int) -> None:
        self.device.kick(index)


class LegacyBank(_Bank):
    """The header of BAR 0 with its MSI-X vectors."""

    MAP = LEGACY_VECTORS

    @on_read(L_DEVICE_FEATURES)
    def _device_features(self) -> int:
        return self.device.offered & spec.LEGACY_FEATURES

    @on_read(L_DRIVER_FEATURES)
    def _read_driver_features(self) -> int:
        return self.device.state.driver_features & spec.LEGACY_FEATURES

    @on_command(L_DRIVER_FEATURES)
    def _driver_features(self, value: int) -> None:
        self.device.accept(value & self.device.offered & spec.LEGACY_FEATURES)

    @on_read(L_QUEUE_ADDRESS)
    def _queue_address(self) -> int:
        index = self.queue_index()
        if index is None or not self.device.state.queues[index].ready:
            return 0
        return self.device.state.queues[index].desc >> PFN_SHIFT & 0xFFFF_FFFF

    @on_command(L_QUEUE_ADDRESS)
    def _set_queue_address(self, value: int) -> None:
        index = self.queue_index()
        if index is None:
            return
        queue = self.device.state.queues[index]
        queue.size = self.device.queue_sizes[index]
        queue.desc, queue.driver, queue.device = legacy_layout(
            queue.size, (value & 0xFFFF_FFFF) << PFN_SHIFT
        )
        self.device.queue_ready(index, False)
        self.device.queue_ready(index, bool(value))

    @on_read(L_QUEUE_SIZE)
    def _queue_size(self) -> int:
        index = self.queue_index()
        return 0 if index is None else self.device.queue_sizes[index]

    @on_command(L_QUEUE_NOTIFY)
    def _notify(self, value: int) -> None:
        self.device.kick(value & 0xFFFF)

    @on_read(L_DEVICE_STATUS)
    def _status(self) -> int:
        return self.device.state.status

    @on_command(L_DEVICE_STATUS)
    def _set_status(self, value: int) -> None:
        self.owner.set_status(value)

    @on_read(L_ISR)
    def _isr(self) -> int:
        return self.owner.take_isr()

    @on_write(L_CONFIG_VECTOR)
    def _config_vector(self, old: int, new: int) -> None:
        self.state.config_msix_vector = self.owner.usable_vector(new)

    @on_read(L_QUEUE_VECTOR)
    def _queue_vector(self) -> int:
        return self.vector()

    @on_command(L_QUEUE_VECTOR)
    def _set_queue_vector(self, value: int) -> None:
        self.set_vector(value)


class VirtioPci(PciFunction[VirtioPciState]):
    """A virtio device as a PCI function."""

    MAP = config_map(
        "virtio-pci",
        vendor=VENDOR,
        device=0x1000,
        class_code=0x020000,
        capabilities=(*_capabilities(1, 4), capability(0x98, 2, MSIX_BAR)[0]),
        interrupt_pin=1,
        ref="VIRTIO 1.2 4.1.2",
    )
    STATE = VirtioPciState
    STATUS_FIXED = 0

    def __init__(
        self, virtio: VirtioDevice[Any], *, legacy: bool = True, modern: bool = True
    ) -> None:
        """Transitional unless an interface is left out; its name is the device's."""
        if not legacy and not modern:
            raise ValueError("expected an interface, legacy or modern")
        if len(virtio.queue_sizes) > MOST_QUEUES:
            raise ValueError(f"expected at most {MOST_QUEUES} queues, not {virtio.queue_sizes!r}")
        # Wires
        self.virtio = virtio
        self.legacy = legacy
        self.modern = modern
        self.request_handles = (virtio.requests,)
        virtio.modern = modern
        vectors = len(virtio.queue_sizes) + 1
        msix_cap, self._msix_ctrl = capability(0x98, vectors, MSIX_BAR)
        config_bytes = virtio.map.length
        self.BARS = self._bars(config_bytes)
        caps = _capabilities(len(virtio.queue_sizes), config_bytes) if modern else []
        regmap = config_map(
            f"virtio-pci-{virtio.name}",
            vendor=VENDOR,
            device=virtio.TRANSITIONAL_ID if legacy else MODERN_ID + virtio.TYPE,
            class_code=virtio.CLASS_CODE,
            revision=0 if legacy else 1,
            subsystem_vendor=VENDOR,
            subsystem=virtio.TYPE if legacy else MODERN_ID + virtio.TYPE,
            interrupt_pin=1,
            capabilities=(*caps, msix_cap),
            ref="VIRTIO 1.2 4.1.2",
        )
        # Parts
        self.msix = Msix(vectors, self.send_msi, name=f"{virtio.name}.msix")
        self.common = CommonBank(self)
        self.isr = IsrBank(self)
        self.notify = NotifyBank(self)
        self.legacy_bank = LegacyBank(self)
        self._banks = (self.common, self.isr, self.notify, self.legacy_bank)
        self._modern_region = Region(
            "virtio-pci-modern",
            MODERN_BYTES,
            (
                (COMMON_AT, self.common),
                (ISR_AT, self.isr),
                (DEVICE_AT, virtio),
                (NOTIFY_AT, self.notify),
            ),
        )
        self._legacy_maps = self._make_legacy_maps()
        # State
        state = VirtioPciState()
        super().__init__(virtio.name, regmap=regmap, state=state)
        virtio.attach(self)

    def _bars(self, config_bytes: int) -> tuple[Bar, ...]:
        size = 1 << (LEGACY_MSIX_BYTES + config_bytes - 1).bit_length()
        return (
            *((Bar(LEGACY_BAR, size, io=True),) if self.legacy else ()),
            Bar(MSIX_BAR, 0x1000),
            *(
                (Bar(MODERN_BAR, MODERN_BYTES, prefetchable=True, wide=True),)
                if self.modern
                else ()
            ),
        )

    def _make_legacy_maps(self) -> tuple[RegMap, RegMap]:
        """Maps of BAR 0 without and with MSI-X, for those who explain accesses."""
        size = 1 << (LEGACY_MSIX_BYTES + self.virtio.map.length - 1).bit_length()
        maps = []
        for header in (LEGACY, LEGACY_VECTORS):
            region = Region(header.name, size, ((0, _Shown(header)), (header.length, self.virtio)))
            maps.append(region.map)
        return maps[0], maps[1]

    def connected(self) -> None:
        """Windows of the base address registers."""
        if self.legacy:
            self.add_bar(
                LEGACY_BAR,
                self._read_legacy,
                self._write_legacy,
                name=self.name,
                regmap=self._legacy_maps[0],
            )
        msix = self.msix
        self.add_bar(MSIX_BAR, msix.read, msix.write, name=msix.name, regmap=msix.map)
        if self.modern:
            region = self._modern_region
            self.add_bar(MODERN_BAR, region.read, region.write, name=self.name, regmap=region.map)

    # -- state -----------------------------------------------------------------------------------

    def _init_state(self, state: VirtioPciState) -> None:
        super()._init_state(state)
        state.msix_ctrl = self._msix_ctrl.reset
        state.common.queue_vectors = [NO_VECTOR] * len(self.virtio.queue_sizes)

    def set_state(self, state: VirtioPciState) -> None:
        """Replace the state, also that of the parts."""
        super().set_state(state)
        self.msix.set_state(state.msix)
        for bank in self._banks:
            bank.set_state(state.common)

    def _check_values(self, state: VirtioPciState) -> None:
        super()._check_values(state)
        expected = len(self.virtio.queue_sizes)
        if len(state.common.queue_vectors) != expected:
            raise StateError(f"{self.map.name}: expected {expected} vectors of queues")
        self.common._check_values(state.common)
        self.msix._check_values(state.msix)

    def reset(self) -> None:
        """Reset of the function and of the device in it."""
        self.virtio.reset()
        super().reset()
        self._follow_msix()

    def save(self) -> dict[str, Any]:
        """Both parts."""
        return {"pci": super().save(), "virtio": self.virtio.save()}

    def restore(self, data: dict[str, Any]) -> None:
        """Both parts; raises StateError."""
        if not isinstance(data, dict) or data.keys() != {"pci", "virtio"}:
            raise StateError(f"{self.name}: expected the keys pci and virtio")
        self.virtio.restore(data["virtio"])
        super().restore(data["pci"])
        self._follow_msix()

    # -- interrupts ------------------------------------------------------------------------------

    def usable_vector(self, value: int) -> int:
        """The vector, or NO_VECTOR where there is none of this number (4.1.5.1.2)."""
        value &= 0xFFFF
        return value if value < self.msix.vectors else NO_VECTOR

    def take_isr(self) -> int:
        """Read and clear ISR status."""
        common = self.state.common
        value, common.isr_status = common.isr_status, 0
        self._sync_irq()
        return value

    def _sync_irq(self) -> None:
        self.set_intx(bool(self.state.common.isr_status) and not self.msix.enabled)

    def _interrupt(self, vector: int, isr: int) -> None:
        if self.msix.enabled:
            if vector != NO_VECTOR:
                self.msix.notify(vector)
        else:
            self.state.common.isr_status |= isr
            self._sync_irq()

    def queue_interrupt(self, index: int) -> None:
        """Used buffers in a queue."""
        self._interrupt(self.state.common.queue_vectors[index], ISR_QUEUE)

    def config_interrupt(self) -> None:
        """Configuration or DEVICE_NEEDS_RESET changed. A driver looks at its queues anyway, and as
        QEMU's this tells it so.
        """
        self._interrupt(self.state.common.config_msix_vector, ISR_CONFIG | ISR_QUEUE)

    # -- configuration space ---------------------------------------------------------------------

    def write(self, offset: int, size: int, value: int) -> None:
        """Configuration write; MSI-X control has a place of its own in each function's map."""
        super().write(offset, size, value)
        if self.state.msix_ctrl & 0xC000 != self.msix.state.control:
            self.msix.set_control(self.state.msix_ctrl)
            self._follow_msix()
            self._sync_irq()

    def _follow_msix(self) -> None:
        window = self._windows.get(LEGACY_BAR)
        if window is not None:
            window.window.regmap = self._legacy_maps[self.msix.enabled]

    def bus_master_changed(self, allowed: bool) -> None:
        """What was made available meanwhile is served now."""
        if allowed:
            self.virtio.kick_all()

    def _pci_cfg_target(self) -> tuple[int, int] | None:
        """(offset, size) in BAR 4 that PCI_CFG selects, None for what is not allowed."""
        state = self.state
        size, offset = state.pci_cfg_length, state.pci_cfg_offset
        if state.pci_cfg_bar != MODERN_BAR or size not in (1, 2, 4):
            return None
        return (offset, size) if offset % size == 0 and offset < MODERN_BYTES else None

    @on_read(PCI_CFG_DATA)
    def _read_pci_cfg(self) -> int:
        target = self._pci_cfg_target()
        return 0 if target is None else self._modern_region.read(*target)

    @on_command(PCI_CFG_DATA)
    def _write_pci_cfg(self, value: int) -> None:
        target = self._pci_cfg_target()
        if target is not None:
            offset, size = target
            self._modern_region.write(offset, size, value & (1 << 8 * size) - 1)

    # -- the device ------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """Guest memory, for the queues."""
        return self.dma

    def set_status(self, value: int) -> None:
        """Device status; 0 resets the transport's part as well (4.1.4.3.1)."""
        if not value & 0xFF:
            common = CommonState(queue_vectors=[NO_VECTOR] * len(self.virtio.queue_sizes))
            self.state.common = common
            for bank in self._banks:
                bank.set_state(common)
            self._sync_irq()
        self.virtio.set_status(value & 0xFF)

    def _legacy_header_bytes(self) -> int:
        return LEGACY_MSIX_BYTES if self.msix.enabled else LEGACY_BYTES

    def _read_legacy(self, offset: int, size: int) -> int:
        header = self._legacy_header_bytes()
        if offset < header:
            return self.legacy_bank.read(offset, size)
        if offset - header < self.virtio.map.length:
            return self.virtio.read(offset - header, size)
        return 0

    def _write_legacy(self, offset: int, size: int, value: int) -> None:
        header = self._legacy_header_bytes()
        if offset < header:
            self.legacy_bank.write(offset, size, value)
        elif offset - header < self.virtio.map.length:
            self.virtio.write(offset - header, size, value)


class _Shown(RegBank[CommonState]):
    """A map without behaviour, for `Region`."""

    STATE = CommonState

    def __init__(self, regmap: RegMap) -> None:
        self.map = regmap
