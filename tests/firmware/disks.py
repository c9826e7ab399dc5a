"""Disks and CDs that boot GRUB, made with Debian's tools; no loop device, no privileges."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SECTOR = 512
PARTITION_AT = 2048  # sectors; GRUB's core lies before it
GRUB = Path("/usr/lib/grub/i386-pc")
# GRUB 2, boot.S and diskboot.S: where the next stage is, as a patched sector number and a list
KERNEL_SECTOR, DRIVE_CHECK, BLOCK_LIST = 0x5C, 0x66, 0x1F4
LOAD_SEGMENT = 0x820
MODULES = ("biosdisk", "part_msdos", "ext2", "serial", "terminal", "linux", "normal", "configfile",
           "echo")  # fmt: skip
SERIAL = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
TOOLS = ("grub-mkimage", "mke2fs")
CD_TOOLS = ("grub-mkrescue", "xorriso", "mformat")


def missing(tools: tuple[str, ...]) -> str:
    """What is not installed, for a skip."""
    found = [tool for tool in tools if shutil.which(tool) is None]
    return ", ".join(found) if found else "" if GRUB.is_dir() else str(GRUB)


def menu(cmdline: str) -> str:
    """A GRUB configuration that boots at once."""
    return (
        SERIAL + "set timeout=0\nmenuentry Linux {\n echo Loading by GRUB\n"
        f" linux /boot/vmlinuz {cmdline}\n initrd /boot/initrd\n}}\n"
    )


def tree(folder: Path, kernel: Path, initrd: Path, cmdline: str) -> Path:
    """The files of the system to boot."""
    boot = folder / "boot"
    (boot / "grub").mkdir(parents=True)
    shutil.copy(kernel, boot / "vmlinuz")
    shutil.copy(initrd, boot / "initrd")
    (boot / "grub" / "grub.cfg").write_text(menu(cmdline))
    return folder


def mbr_disk(path: Path, files: Path, scratch: Path) -> Path:
    """A disk with an MBR, GRUB in the gap behind it and one ext2 partition with `files`."""
    used = sum(f.stat().st_size for f in files.rglob("*") if f.is_file())
    sectors = (used // SECTOR * 5 // 4 + 16384) & ~2047
    partition = scratch / "partition"
    with partition.open("wb") as file:
        file.truncate(sectors * SECTOR)
    subprocess.run(["mke2fs", "-q", "-t", "ext2", "-d", files, partition], check=True)
    early, core_path = scratch / "early.cfg", scratch / "core.img"
    early.write_text(SERIAL + "set root=hd0,msdos1\nset prefix=(hd0,msdos1)/boot/grub\n")
    subprocess.run(
        ["grub-mkimage", "-O", "i386-pc", "-o", core_path, "-c", early,
         "-p", "(hd0,msdos1)/boot/grub", *MODULES],
        check=True,
    )  # fmt: skip
    core = bytearray(core_path.read_bytes())
    core.extend(bytes(-len(core) % SECTOR))
    count = len(core) // SECTOR
    assert count < PARTITION_AT, "GRUB's core is larger than the gap"
    struct.pack_into("<QHH", core, BLOCK_LIST, 2, count - 1, LOAD_SEGMENT)
    boot = bytearray((GRUB / "boot.img").read_bytes())
    struct.pack_into("<Q", boot, KERNEL_SECTOR, 1)
    struct.pack_into("<H", boot, DRIVE_CHECK, 0x9090)
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff",
                        PARTITION_AT, sectors)  # fmt: skip
    boot[0x1BE:0x200] = entry.ljust(64, b"\0") + b"\x55\xaa"
    with path.open("wb") as file:
        file.write(boot + core)
        file.seek(PARTITION_AT * SECTOR)
        file.write(partition.read_bytes())
    return path


def rescue_cd(path: Path, files: Path) -> Path:
    """An El Torito CD with GRUB, as grub-mkrescue makes it for a PC BIOS."""
    subprocess.run(
        ["grub-mkrescue", "-d", GRUB, "-o", path, files, "--locales=", "--fonts=", "--themes=",
         "--install-modules=biosdisk iso9660 part_msdos serial terminal linux normal echo"],
        check=True, capture_output=True,
    )  # fmt: skip
    return path
