"""A whole Debian on a disk image: systemd, a login, a network and ssh, made by ``mmdebstrap``.

Besides the disk there are its kernel and its own initramfs, so that it boots without a boot loader
too. Nothing is installed on this machine; without root ``mmdebstrap`` uses a user namespace.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from guests.errors import GuestError

SUITE = "bookworm"
SIZE_MIB = 2048
PACKAGES = (
    *("linux-image-amd64", "initramfs-tools", "systemd-sysv", "dbus", "udev", "login", "kmod"),
    *("procps", "e2fsprogs", "iproute2", "iputils-ping", "pciutils"),
    *("openssh-server", "ca-certificates", "curl"),
)
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
PASSWORD = "workbench"
"""Of root, on the console; by ssh it needs the key whose public half was given."""

# What mmdebstrap does as its last step, with the new root directory as $1. The resolver is that of
# the user network; the name of the interface depends on the slot, which the pattern leaves open.
_HOOK = r"""#!/bin/sh
set -e
root=$1
echo guest > "$root/etc/hostname"
echo "127.0.1.1 guest" >> "$root/etc/hosts"
echo "/dev/root / ext4 defaults 0 1" > "$root/etc/fstab"
printf '[Match]\nName=en*\n[Network]\nDHCP=yes\n' > "$root/etc/systemd/network/net.network"
echo "root:$PASSWORD" | chroot "$root" chpasswd
chroot "$root" systemctl enable systemd-networkd
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root/usr/sbin/policy-rc.d" "$root"/etc/*/*/99mmdebstrap
if [ -e "$root/sbin/start-stop-daemon.REAL" ]; then
    mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
fi
rm -f "$root/etc/resolv.conf"
echo "nameserver 10.0.2.3" > "$root/etc/resolv.conf"
if [ -n "$KEY" ]; then
    mkdir -p -m 700 "$root/root/.ssh"
    cp "$KEY" "$root/root/.ssh/authorized_keys"
fi
cp "$root"/boot/vmlinuz-* "$OUT/vmlinuz"
cp "$root"/boot/initrd.img-* "$OUT/initrd.img"
chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' > "$OUT/PACKAGES"
rm -f "$OUT/disk.img"
mkdir "$OUT/root"  # the root alone, without the /proc, /sys and /dev that are mounted in it now
mount --bind "$root" "$OUT/root"
mke2fs -q -t ext4 -L root -d "$OUT/root" "$OUT/disk.img" "$SIZE"
umount "$OUT/root"
rmdir "$OUT/root"
"""


@dataclass(frozen=True, slots=True)
class Debian:
    """A made guest, all of it existing files in one directory."""

    directory: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Kernel, initramfs and disk."""
        return tuple(self.directory / name for name in ("vmlinuz", "initrd.img", "disk.img"))


def make(
    directory: Path,
    suite: str = SUITE,
    packages: Sequence[str] = (),
    size_mib: int = SIZE_MIB,
    key: Path | None = None,
    mirror: str = "",
    log: TextIO | None = None,
) -> Debian:
    """Make the guest in `directory`, with more `packages` than the usual, on a disk of `size_mib`.

    The public `key` opens root by ssh. Progress goes to `log`, a line a step. Raises `GuestError`.
    """
    if missing := [package for tool, package in TOOLS.items() if shutil.which(tool) is None]:
        raise GuestError(f"{' and '.join(missing)} must be installed: apt-get install {missing[0]}")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", suite):
        raise GuestError(f"expected the name of a Debian suite such as {SUITE}, not {suite!r}")
    if key is not None and not key.is_file():
        raise GuestError(f"expected a file with a public key, not {key}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".debian-") as name:
        made = Path(name) / "made"
        made.mkdir()
        for shared in (Path(name), made):
            shared.chmod(0o777)  # in a user namespace somebody else writes it
        hook = Path(name) / "hook"
        hook.write_text(_HOOK)
        hook.chmod(0o755)
        settings = {"OUT": str(made), "SIZE": f"{size_mib}M", "PASSWORD": PASSWORD}
        settings["KEY"] = "" if key is None else str(key.resolve())
        wanted = ",".join([*PACKAGES, *packages])
        command = ["mmdebstrap", "--variant=minbase", "--format=null", f"--include={wanted}"]
        command += [f"--customize-hook={hook}", suite, "/dev/null", *([mirror] if mirror else [])]
        _run(command, settings, log)
        made.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        made.rename(directory)
    return Debian(directory)


def _run(command: list[str], settings: dict[str, str], log: TextIO | None) -> None:
    """Run mmdebstrap, its steps to `log`; the last complaints are in the error that it raises."""
    said: list[str] = []
    with subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("I: ") and log is not None:
                print(f"  {line[3:].rstrip()}", file=log, flush=True)
            elif line.strip():
                said.append(line.strip())
    if process.returncode:
        raise GuestError(f"mmdebstrap could not make the guest: {'; '.join(said[-4:])}")


def describe(guest: Debian) -> str:
    """Return a few lines for people: what was made, and how to boot it."""
    version = "?"
    with contextlib.suppress(OSError):
        packages = (guest.directory / "PACKAGES").read_text()
        if found := re.search(r"^base-files (\S+)", packages, re.MULTILINE):
            version = found[1]
    kernel, initrd, disk = (shlex.quote(str(path)) for path in guest.files)
    return f"""debian: a whole Debian {version}; log in as root with the password {PASSWORD}
  workbench record --kernel {kernel} \\
      --initrd {initrd} \\
      --append "root=/dev/vda console=ttyS0" -m 1G \\
      --drive file={disk},format=raw,if=virtio \\
      --nic user,model=virtio-net,hostfwd=tcp:127.0.0.1:2222-:22 -o debian.wbt"""
