"""UEFI: EDK2 finds a FAT disk, GRUB from it boots Linux, and Linux powers off by ACPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guests.build import ensure
from guests.errors import GuestError
from workbench.cli.roms import IPXE_FILES, OVMF_FILES, first_of

pytestmark = [pytest.mark.slow, pytest.mark.guest]
CODE = Path("/usr/share/OVMF/OVMF_CODE.fd")
CONFIG = """serial --unit=0 --speed=115200
terminal_output serial
search --file --set=root /vmlinuz
load_env -f /grubenv
if [ -z "$again" ]; then
  set again=1
  save_env -f /grubenv again
  echo "for the first time"
  reboot
fi
linux /vmlinuz console=ttyS0 quiet
initrd /initrd
boot
"""


def workbench(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        capture_output=True, text=True, errors="replace", timeout=300,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return done.stdout


def test_grub_under_uefi_boots_linux_after_a_reset(tmp_path: Path) -> None:
    tools = ("grub-mkstandalone", "mkfs.fat", "mmd", "mcopy")
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking or first_of(OVMF_FILES) is None or not Path("/usr/lib/grub/x86_64-efi").is_dir():
        pytest.skip(f"not installed: {lacking or 'ovmf or grub-efi-amd64-bin'}")
    try:
        guest = ensure("cloud")
    except GuestError as error:
        pytest.skip(str(error))
    (tmp_path / "grub.cfg").write_text(CONFIG)
    (tmp_path / "grubenv").write_text("# GRUB Environment Block\n".ljust(1024, "#"))
    loader, disk, trace = tmp_path / "BOOTX64.EFI", tmp_path / "disk.img", tmp_path / "uefi.wbt"
    for command in (
        ["grub-mkstandalone", "-O", "x86_64-efi", "-o", loader, "--locales=", "--fonts=",
         "--themes=",
         "--install-modules=fat serial linux search normal terminal loadenv test echo reboot",
         f"boot/grub/grub.cfg={tmp_path / 'grub.cfg'}"],
        ["mkfs.fat", "-C", "-F", "32", disk, "65536"],
        ["mmd", "-i", disk, "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", disk, loader, "::/EFI/BOOT/"],
        ["mcopy", "-i", disk, tmp_path / "grubenv", "::/grubenv"],
        ["mcopy", "-i", disk, guest.kernel, "::/vmlinuz"],
        ["mcopy", "-i", disk, guest.images["boot"], "::/initrd"],
    ):  # fmt: skip
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    # 512 MiB: with 256, GRUB is out of memory on QEMU as well
    console = workbench(
        "record", "--bios", "ovmf", "-m", "512", "--drive", f"file={disk},if=virtio",
        "--max-insns", "20G", "-o", trace,
    )  # fmt: skip
    for text in ("BdsDxe: starting Boot", "== init", "power off"):
        assert text in console, console[-2000:]
    assert console.count("for the first time") == 1
    assert console.count("BdsDxe: starting Boot") == 2
    disk.unlink()
    assert "== init" in workbench("replay", trace)


def test_variables_stay_in_a_flash_file_that_a_replay_does_not_need(tmp_path: Path) -> None:
    """The shell's script looks for a variable, sets it, and resets: the second time it is there."""
    lacking = [tool for tool in ("mkfs.fat", "mcopy") if shutil.which(tool) is None]
    if lacking or not CODE.exists():
        pytest.skip(f"not installed: {lacking or 'ovmf'}")
    guid = "-guid 12345678-1234-1234-1234-123456789abc"
    script, disk = tmp_path / "startup.nsh", tmp_path / "esp.img"
    script.write_text(
        f"setvar Wb {guid}\r\nif %lasterror% == 0 then\r\n  reset -s\r\nendif\r\n"
        f"setvar Wb {guid} -bs -rt -nv =42434445\r\nreset\r\n"
    )
    subprocess.run(["mkfs.fat", "-C", "-F", "32", disk, "40000"], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", disk, script, "::/"], check=True)
    variables, trace = tmp_path / "vars.fd", tmp_path / "flash.wbt"
    shutil.copy(CODE.with_name("OVMF_VARS.fd"), variables)
    console = workbench(
        "record", "--drive", f"if=pflash,format=raw,readonly=on,file={CODE}",
        "--drive", f"if=pflash,format=raw,rw=on,file={variables}",
        "--drive", f"file={disk},if=virtio", "--max-insns", "20G", "-o", trace,
        "--ps-per-insn", "200000",  # the shell waits five seconds, twice: a sixth of the polls
    )  # fmt: skip
    assert "Unable to get" in console
    assert "Wb - 0004 Bytes" in console.partition("Unable to get")[2]
    assert "W\0b\0\0\0BCDE".encode("latin-1") in variables.read_bytes()
    variables.unlink()
    assert "Wb - 0004 Bytes" in workbench("replay", trace)


def test_a_kernel_by_its_efi_stub(tmp_path: Path) -> None:
    if first_of(OVMF_FILES) is None:
        pytest.skip("not installed: ovmf")
    try:
        guest = ensure("cloud")
    except GuestError as error:
        pytest.skip(str(error))
    trace = tmp_path / "stub.wbt"
    console = workbench(
        "record", "--bios", "ovmf", "--kernel", guest.kernel, "--initrd", guest.images["boot"],
        "--append", "console=ttyS0", "-m", "512", "--max-insns", "20G", "-o", trace,
    )  # fmt: skip
    for text in ("efi: EFI v2.70 by EDK II", "Registered efivars operations", "power off"):
        assert text in console, console[-2000:]
    assert "power off" in workbench("replay", trace)


def test_grub_by_the_network(tmp_path: Path) -> None:
    """By iPXE's UEFI driver in the ROM of the e1000, for which OVMF has none."""
    needed = (IPXE_FILES["e1000"][:1], OVMF_FILES)
    if any(first_of(paths) is None for paths in needed) or not shutil.which("grub-mkstandalone"):
        pytest.skip("not installed: ovmf, ipxe-qemu or grub")
    served, script = tmp_path / "tftp", tmp_path / "grub.cfg"
    served.mkdir()
    script.write_text(
        "serial --unit=0 --speed=115200\nterminal_output serial\necho came by net\nhalt\n"
    )
    subprocess.run(
        ["grub-mkstandalone", "-O", "x86_64-efi", "-o", str(served / "net.efi"), "--locales=",
         "--fonts=", "--themes=", "--install-modules=serial echo halt terminal normal",
         f"boot/grub/grub.cfg={script}"],
        check=True, capture_output=True,
    )  # fmt: skip
    trace = tmp_path / "net.wbt"
    console = workbench(
        "record", "--bios", "ovmf", "-m", "256", "--max-insns", "6G", "-o", trace,
        "--nic", f"e1000,user,tftp={served},bootfile=net.efi,bootindex=0",
    )  # fmt: skip
    assert "net.efi : " in console
    assert "came by net" in console.partition("net.efi : ")[2], console[-2000:]
    shutil.rmtree(served)
    assert "came by net" in workbench("replay", trace)
