"""The chipset's devices against the rules of `conformance`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.hw import conformance
from tests.hw.conformance import Case, Rig
from tests.hw.ide_rig import MemoryDisk
from workbench.core.bus import Bus, Window
from workbench.core.regs import RegBank
from workbench.core.state import StateError
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.hpet import Hpet, LegacyGate
from workbench.hw.i440fx import I440fx
from workbench.hw.ioapic import Ioapic
from workbench.hw.lapic import Lapic
from workbench.hw.pci_root import PciRoot
from workbench.hw.piix3 import Piix3
from workbench.hw.piix4_pm import Piix4Pm
from workbench.hw.piix_ide import PiixIde


def _whole(bank: RegBank[Any], length: int = 0) -> Window:
    return Window.of(bank, bank.name, 0, size=length)


def _root(rig: Rig) -> PciRoot:
    return PciRoot(
        Bus("pio", 1 << 16),
        Bus("mmio"),
        memory_read=lambda gpa, n: bytes(n),
        memory_write=rig.call("write"),
        pirq=rig.call("pirq"),
    )


def _lapic(rig: Rig) -> Lapic:
    lapic = Lapic(rig.clock, set_intr=rig.call("intr"), set_nmi=rig.call("nmi"))
    lapic.write(0xF0, 4, 0x1FF)
    return lapic


def _poke_lapic(lapic: Lapic, rng: random.Random) -> None:
    match rng.randrange(5):
        case 0:
            lapic.deliver(0, False, rng.choice((0, 1, 4)), rng.randrange(256), rng.random() < 0.5)
        case 1:
            lapic.acknowledge()
        case 2:
            lapic.set_lint(rng.randrange(2), rng.random() < 0.5)
        case 3:
            lapic.write_tsc_deadline(lapic.clock.now_ns + rng.randrange(1 << 20))
        case _:
            lapic.write(0xB0, 4, 0)


def _ioapic(rig: Rig) -> Ioapic:
    def deliver(*message: Any) -> bool:
        rig.events.append(message)
        return True

    return Ioapic(deliver)


def _poke_ioapic(ioapic: Ioapic, rng: random.Random) -> None:
    if rng.random() < 0.3:
        ioapic.eoi(rng.randrange(256))
    elif rng.random() < 0.5:
        ioapic.write(0, 4, 0x10 + rng.randrange(48))
        ioapic.write(0x10, 4, rng.getrandbits(17))
    else:
        ioapic.set_pin(rng.randrange(24), rng.random() < 0.5)


def _hpet(rig: Rig) -> Hpet:
    gates = (LegacyGate(rig.line("pit")), LegacyGate(rig.line("rtc")))
    return Hpet(
        rig.clock,
        lambda name, pin: rig.line(f"{name}.{pin}"),
        legacy=(rig.line("IRQ0"), rig.line("IRQ8")),
        gates=gates,
    )


def _in_slot(rig: Rig, function: Any, device: int, number: int = 0) -> Any:
    root = _root(rig)
    root.add(function, device, number)
    return function


def _ide(rig: Rig) -> PiixIde:
    drives = (
        (AtaDisk("d0", MemoryDisk(500)), AtaDisk("d1", MemoryDisk(90))),
        (AtapiDrive("cd0", MemoryDisk(64)), None),
    )
    return PiixIde(drives, rig.clock, (rig.line("IRQ14"), rig.line("IRQ15")))


def _ide_windows(ide: PiixIde) -> Sequence[Window]:
    banks = [_whole(channel) for channel in ide.channels]
    return [
        _whole(ide),
        _whole(ide.master),
        *banks * 3,
        *(_whole(c.control) for c in ide.channels),
    ]


def _config_windows(function: Any) -> Sequence[Window]:
    windows = [_whole(function)]
    if isinstance(function, Piix4Pm):
        windows.append(_whole(function.io))
    return windows


CASES = [
    Case("lapic", _lapic, lambda d: (_whole(d, 0x400),), _poke_lapic),
    Case("ioapic", _ioapic, lambda d: (_whole(d, 0x50),), _poke_ioapic),
    Case("hpet", _hpet, lambda d: (_whole(d, 0x180),)),
    Case("pci", _root, lambda d: d.windows("i440fx")),
    Case("i440fx", lambda rig: _in_slot(rig, I440fx(), 0), _config_windows),
    Case(
        "piix3",
        lambda rig: _in_slot(rig, Piix3(lambda name, n: rig.line(f"{name}.{n}")), 1),
        _config_windows,
        lambda d, rng: d.set_pirq(rng.randrange(4), rng.random() < 0.5),
    ),
    Case(
        "piix4_pm",
        lambda rig: _in_slot(rig, Piix4Pm(rig.clock, rig.line("sci"), rig.call("off")), 1, 3),
        _config_windows,
        lambda d, rng: d.handle_input("power", b""),
    ),
    Case(
        "piix3_ide",
        lambda rig: _in_slot(rig, _ide(rig), 1, 1),
        _ide_windows,
        lambda d, rng: d.channels[1].drives[0].receive(rng.choice(("eject", "insert")), b"0"),
    ),
]
ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SEEDS = pytest.mark.parametrize("seed", range(12))


@ALL
@SEEDS
@pytest.mark.parametrize(
    "check",
    [conformance.check_never_raises, conformance.check_round_trip],
    ids=lambda c: c.__name__,
)
def test_random_accesses(check: Any, case: Case, seed: int) -> None:
    check(case, seed)


@ALL
@pytest.mark.parametrize(
    "check",
    [partial(conformance.check_deterministic), partial(conformance.check_reset)],
    ids=("deterministic", "reset"),
)
def test_once(check: Any, case: Case) -> None:
    check(case, 1)


@ALL
def test_wrong_state_is_refused(case: Case) -> None:
    with pytest.raises(StateError):
        case.build(Rig()).restore({"kind": "something", "version": 1, "fields": {}})
