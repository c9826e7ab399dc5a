"""The embedded default guest: it is what its source says, and it runs in another PC, too."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from workbench.firmware import demo, multiboot
from workbench.firmware.demo import build

CHECKSUM = "ed3fc5702bd7e325"


def test_shipped_binary_is_a_multiboot_guest() -> None:
    assert multiboot.Image.parse(demo.image()).entry == 0x10000C


@pytest.mark.skipif(not build.available(), reason="binutils is not installed")
def test_shipped_binary_is_made_from_the_shipped_source() -> None:
    source = Path(build.__file__).parent / "demo.S"
    assert source.read_text(encoding="utf-8") == demo.source()
    rebuilt = multiboot.Image.parse(build.assemble(source))
    assert rebuilt == multiboot.Image.parse(demo.image()), f"run python -m {build.__name__}"


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_runs_in_qemu(tmp_path: Path) -> None:
    kernel = tmp_path / "demo.elf"
    kernel.write_bytes(demo.image())
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none"),
            *("-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4"),
            *("-kernel", kernel),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, "value 0 at the debug exit"
    for expected in (
        r"RTC       20\d\d-\d\d-\d\d \d\d:\d\d:\d\d",
        r"PIC, PIT  20 timer interrupts at 100 Hz",
        r"HPET      period 10 ns, \d timers, main counter runs",
        r"i8042     self-test 55",
        r"ACPI      .*FACP.* and a PM timer at port [0-9a-f]{4} that runs",
        r"PCI       00:00\.0 8086:1237 class 0600",
        rf"Checksum  {CHECKSUM}",
        r"Done\.",
    ):
        assert re.search(expected, done.stdout), done.stdout
