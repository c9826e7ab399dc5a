"""The initramfs images: busybox, the few device nodes it needs, and one ``/init`` for each use."""

import base64
from collections.abc import Sequence

from guests.cpio import Archive

_PROLOGUE = """\
#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /tmp /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
"""

# What the guest does after its kernel is up, by variant.
INITS = {
    "boot": _PROLOGUE
    + """\
echo "== init: $(uname -a)"
cat /proc/cpuinfo
cat /proc/interrupts
cat /proc/meminfo | head -5
cat /proc/iomem /proc/ioports
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
dmesg | tail -20
ls -l / /bin | head -40
n=0
while [ $n -lt 200 ]; do n=$((n + 1)); done
echo "counted to $n"
for word in one two three; do echo $word | md5sum; done
dd if=/dev/zero of=/tmp/zeros bs=64k count=16 2>/dev/null && md5sum /tmp/zeros
sleep 0.2
echo "== init: power off"
poweroff -f
""",
    "drivers": _PROLOGUE
    + """\
for name in $(cat /modules/order); do insmod /modules/$name.ko 2>/dev/null; done
sleep 0.3
for word in $(cat /proc/cmdline); do
  case $word in wb_run=*) echo "${word#wb_run=}" | base64 -d > /tmp/run;; esac
done
if [ -s /tmp/run ]; then sh /tmp/run; else setsid cttyhack sh; fi
poweroff -f
""",
    "shell": _PROLOGUE
    + """\
echo "A shell in the guest; leave it with 'exit' to power off."
cd /root
setsid cttyhack sh
poweroff -f
""",
}


MODULES = "drivers"
"""The variant that has modules.  It runs the shell script given in base64 as ``wb_run=`` on the
kernel's command line, or else an interactive shell, and powers off."""


def run_option(script: str) -> str:
    """The word of the kernel's command line that makes the ``drivers`` image run `script`."""
    return "wb_run=" + base64.b64encode(script.encode()).decode()


def initramfs(busybox: bytes, variant: str, modules: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Return the compressed initramfs whose ``/init`` is ``INITS[variant]``."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "tmp", "root"):
        archive.directory(name)
    archive.char_device("dev/console", 5, 1)
    archive.char_device("dev/null", 1, 3, mode=0o666)
    archive.file("bin/busybox", busybox, mode=0o755)
    archive.symlink("bin/sh", "busybox")
    if variant == MODULES:
        archive.directory("modules")
        archive.file("modules/order", "\n".join(name for name, _ in modules).encode())
        for name, content in modules:
            archive.file(f"modules/{name}.ko", content)
    archive.file("init", INITS[variant].encode(), mode=0o755)
    return archive.to_gzip()
