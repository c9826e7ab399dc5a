"""The real gdb in 16-bit and 32-bit code: a BIOS from the reset vector on, and a 32-bit kernel."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gdbstub.test_gdb import Gdb
from workbench.cli.roms import SEABIOS_FILES
from workbench.core.config import FirmwareConfig, MachineConfig
from workbench.gdbstub.registers import AUTO
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.symbols import elf, guest_symbols
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.guest import BIOS, Guest, Rom
from workbench.trace.reader import open_trace
from workbench.trace.session import Limits, Recording
from workbench.trace.timeline import Timeline

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


@contextmanager
def debugging(timeline: Timeline, folder: Path, seconds: int = 20) -> Iterator[Gdb]:
    """A gdb on a timeline that takes the architecture from the stub."""
    with Server(Stub(ReplayTarget(timeline), AUTO), listen(f"unix:{folder / 'gdb'}")) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        gdb = Gdb(server.address, seconds, architecture="auto")
        yield gdb
        gdb.close()
        server.stub.killed = True
        thread.join(10)


@pytest.fixture
def bios(tmp_path: Path) -> Iterator[Timeline]:
    rom = next((path for path in map(Path, SEABIOS_FILES) if path.exists()), None)
    if rom is None:
        pytest.skip("SeaBIOS is not installed")
    config = MachineConfig(
        ram_bytes=64 << 20, seed=1, rtc_epoch_s=10**9,
        firmware=FirmwareConfig(reboot_timeout_ms=1000),
    )  # fmt: skip
    guest = Guest(None, roms={BIOS: Rom(str(rom), rom.read_bytes())})
    path = str(tmp_path / "bios.wbt")
    Recording(path, config.to_json(), guest, limits=Limits(icount=3_000_000)).run()
    with open_trace(path) as trace:
        yield Timeline(trace)


def test_a_bios_from_the_reset_vector(bios: Timeline, tmp_path: Path) -> None:
    with debugging(bios, tmp_path) as gdb:
        assert "i8086" in gdb.do("show architecture")
        assert gdb.value("$pc") == 0xFFFF_FFF0
        assert "ljmp" in gdb.do("x/i $pc")
        gdb.do("stepi")
        pc = gdb.value("$pc")
        assert pc == gdb.value("$cs_base") + gdb.value("$ip")
        assert 0xF_0000 <= pc < 0x10_0000
        gdb.do("stepi 3")
        place, third = gdb.value("$pc"), gdb.icount()
        gdb.do("hbreak *$pc")
        gdb.do("reverse-stepi 3")
        assert gdb.value("$pc") == pc
        assert "Breakpoint 1" in gdb.do("continue")
        assert (gdb.value("$pc"), gdb.icount()) == (place, third)
        gdb.do("stepi 5")
        assert "Breakpoint 1" in gdb.do("reverse-continue")
        assert gdb.icount() == third
        gdb.do("delete")
        # Writing the program counter goes on at that linear address.
        gdb.do(f"set $pc = {pc:#x}")
        assert gdb.value("$ip") == pc - gdb.value("$cs_base")
        gdb.do("monitor drop")


def test_a_breakpoint_in_16_bit_code_reached_from_32_bit_code(
    bios: Timeline, tmp_path: Path
) -> None:
    """SeaBIOS goes back and forth: what is found in one mode is found again in the other."""
    with debugging(bios, tmp_path) as gdb:
        for percent in range(30, 100, 5):
            gdb.do(f"monitor seek {percent}%")
            if "16-bit code" in gdb.do("monitor architecture"):
                break
        gdb.do("maintenance flush register-cache")
        place, count = gdb.value("$pc"), gdb.icount()
        gdb.do("monitor seek start")
        gdb.do("maintenance flush register-cache")
        gdb.do(f"hbreak *{place:#x}")
        assert "Breakpoint 1" in gdb.do("continue")
        assert gdb.icount() <= count
        assert gdb.value("$pc") == place


@pytest.mark.guest
@pytest.mark.slow
def test_a_32_bit_kernel_and_its_driver(pae_trace: Path, tmp_path: Path) -> None:
    with open_trace(pae_trace) as trace:
        timeline = Timeline(trace)
        timeline.seek(timeline.end_icount)
        symbols = guest_symbols(timeline.machine)
        path = tmp_path / "guest.elf"
        path.write_bytes(elf(symbols))
        assert path.read_bytes()[:5] == b"\x7fELF\1"
        timeline.seek(timeline.end_icount * 3 // 5)
        with debugging(timeline, tmp_path, 120) as gdb:
            gdb.do(f"symbol-file {path}")
            assert "i386" in gdb.do("show architecture")
            gdb.do("hbreak e1000_probe")
            assert "e1000_probe ()" in gdb.do("continue")
            places = {name: address for address, _, name in symbols}
            assert gdb.value("$eip") == places["e1000_probe"]
            begun = gdb.icount()
            assert "pci_device_probe" in gdb.do("bt 2")
            assert "%e" in gdb.do("x/8i $pc")
            gdb.do("stepi 3")
            gdb.do("reverse-stepi 3")
            assert gdb.icount() == begun
            # regparm(3): the first argument, struct pci_dev *, is in EAX.
            assert gdb.value("$eax") >= 0xC000_0000
            assert "pci_device_probe" in gdb.do("finish")
            assert gdb.value("$eax") == 0
            gdb.do("reverse-continue")
            assert gdb.icount() == begun
            assert "e1000_probe" in gdb.do("info symbol $pc")
