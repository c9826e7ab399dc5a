"""Where things land never depends on how the run is cut, on what is cached, or on snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import guests
from tests.core.regions.random_loops import eager
from workbench import firmware
from workbench.core.config import MachineConfig
from workbench.core.machine import Machine
from workbench.hw.board import build_pc

MIDDLE, END = 500_000_000, 502_000_000
GuestMaker = Callable[[str], guests.Guest]


def boot(files: guests.Guest) -> Machine:
    machine = build_pc(MachineConfig(ram_bytes=128 << 20, rtc_epoch_s=1_700_000_000))
    kernel, initrd = files.kernel.read_bytes(), files.images["boot"].read_bytes()
    firmware.load(machine, kernel, initrd, "console=ttyS0")
    return machine


def plain(machine: Machine) -> None:
    machine.run(END)


def blocks_of_one_instruction(machine: Machine) -> None:
    machine.run(MIDDLE)
    machine.cpu.set("max_insns", 1)
    machine.cpu.forget_code()
    machine.run(END)


def single_steps(machine: Machine) -> None:
    machine.run(MIDDLE)
    for n in range(MIDDLE, MIDDLE + 20_000):
        machine.run(n + 1)
    machine.run(END)


def cold_caches(machine: Machine) -> None:
    for n in range(0, END, END // 6):
        machine.run(n)
        machine.cpu.forget_code()
    machine.run(END)


def odd_slices(machine: Machine) -> None:
    for n in range(0, END, 9_999_991):
        machine.run(n)
    machine.run(END)


def there_and_back(machine: Machine) -> None:
    machine.run(MIDDLE)
    then, digest = machine.save(), machine.digest()
    machine.run(END)
    machine.restore(then)
    assert machine.digest() == digest
    machine.run(END)


def regions(machine: Machine) -> None:
    machine.cpu.hot.failed = False
    with eager(20_000_000):
        machine.run(END)
    assert machine.cpu.hot.installed > 3


@pytest.fixture(scope="module")
def files() -> Iterator[guests.Guest]:
    try:
        yield guests.ensure("cloud")
    except guests.GuestError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def expected(files: guests.Guest) -> bytes:
    machine = boot(files)
    plain(machine)
    return machine.digest()


@pytest.mark.parametrize(
    "way",
    [
        plain,
        blocks_of_one_instruction,
        single_steps,
        cold_caches,
        odd_slices,
        there_and_back,
        regions,
    ],
)
def test_one_digest_whatever_the_way(
    files: guests.Guest, expected: bytes, way: Callable[[Machine], None]
) -> None:
    machine = boot(files)
    way(machine)
    assert machine.clock.icount == END
    assert machine.digest() == expected
