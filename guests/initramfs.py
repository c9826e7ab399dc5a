"""The initramfs images: busybox, the few device nodes it needs, and one ``/init`` for each use."""

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
    "shell": _PROLOGUE
    + """\
echo "A shell in the guest; leave it with 'exit' to power off."
cd /root
setsid cttyhack sh
poweroff -f
""",
}


def initramfs(busybox: bytes, variant: str) -> bytes:
    """Return the compressed initramfs whose ``/init`` is ``INITS[variant]``."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "tmp", "root"):
        archive.directory(name)
    archive.char_device("dev/console", 5, 1)
    archive.char_device("dev/null", 1, 3, mode=0o666)
    archive.file("bin/busybox", busybox, mode=0o755)
    archive.symlink("bin/sh", "busybox")
    archive.file("init", INITS[variant].encode(), mode=0o755)
    return archive.to_gzip()
