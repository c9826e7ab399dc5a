"""Virtio devices against the rules of `conformance`, on both transports."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from tests.hw import conformance
from tests.hw.conformance import Case, Rig
from tests.hw.virtio.disks import MemoryDisk
from tests.hw.virtio.test_hostile import Port
from workbench.core.bus import Bus, Window
from workbench.core.state import StateError
from workbench.hw.pci_root import PciRoot
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.console import VirtioConsole
from workbench.hw.virtio.mmio import SystemMemory, VirtioMmio
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.pci import VirtioPci
from workbench.hw.virtio.rng import VirtioRng

RAM_BYTES = 1 << 20


def _read(gpa: int, length: int) -> bytes:
    """Memory that never changes, full of small numbers."""
    seed = hashlib.blake2b(gpa.to_bytes(8, "little")).digest()
    return bytes(b & 7 if b & 0x80 else 0 for b in (seed * (length // 64 + 1))[:length])


def _contains(gpa: int, length: int) -> bool:
    return gpa >= 0 and gpa + length <= RAM_BYTES


def _blk(rig: Rig) -> VirtioBlk:
    return VirtioBlk("blk", MemoryDisk(64), rig.clock, num_queues=2, packed=True)


def _net(rig: Rig) -> VirtioNet:
    return VirtioNet("net", "52:54:00:12:34:56", Port(), packed=True)


def _rng(rig: Rig) -> VirtioRng:
    return VirtioRng("rng", 7, packed=True)


def _console(rig: Rig) -> VirtioConsole:
    return VirtioConsole("console", rig.call("print"), ports=("a", "b"), packed=True)


def _pci(make: Any, **options: Any) -> Any:
    def build(rig: Rig) -> VirtioPci:
        root = PciRoot(
            Bus("pio", 1 << 16),
            Bus("mmio"),
            memory_read=_read,
            memory_write=rig.call("write"),
            pirq=rig.call("pirq"),
        )
        root.is_memory = _contains
        root.msi = rig.call("msi")
        function = VirtioPci(make(rig), **options)
        root.add(function, 3)
        function.write(4, 2, 7)
        return function

    return build


def _pci_windows(function: VirtioPci) -> list[Window]:
    windows = [Window.of(function, function.name, 0), Window.of(function.msix, "msix", 0)]
    windows += [moved.window for moved in function._windows.values()] * 3
    return windows


def _mmio(make: Any, legacy: bool) -> Any:
    def build(rig: Rig) -> VirtioMmio:
        memory = SystemMemory("m", _read, rig.call("write"), _contains)
        return VirtioMmio(make(rig), memory, rig.line("irq"), legacy=legacy)

    return build


def _poke(device: Any, rng: random.Random) -> None:
    virtio = device.virtio
    if hasattr(virtio, "receive"):
        virtio.receive(rng.choice(("frame", "rx", "link", "size")), rng.randbytes(4))
    virtio.set_status(rng.choice((0, 3, 7, 15)))
    virtio.queue_ready(rng.randrange(len(virtio.queue_sizes)), rng.random() < 0.8)
    virtio.kick(rng.randrange(3))


CASES = []
for _make in (_blk, _net, _rng, _console):
    _name = f"virtio{_make.__name__}"
    CASES += [
        Case(f"{_name}-pci", _pci(_make), _pci_windows, _poke),
        Case(f"{_name}-modern", _pci(_make, legacy=False), _pci_windows, _poke),
        Case(f"{_name}-legacy", _pci(_make, modern=False), _pci_windows, _poke),
        Case(f"{_name}-mmio", _mmio(_make, False), poke=_poke),
        Case(f"{_name}-mmio1", _mmio(_make, True), poke=_poke),
    ]
ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
CHECKS = [
    conformance.check_never_raises,
    conformance.check_round_trip,
    conformance.check_deterministic,
    conformance.check_reset,
    conformance.check_damaged_state,
]


@ALL
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rules(check: Any, case: Case) -> None:
    check(case, 1)


@ALL
def test_wrong_state_is_refused(case: Case) -> None:
    with pytest.raises(StateError):
        case.build(Rig()).restore({"kind": "something", "version": 1, "fields": {}})
