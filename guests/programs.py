"""Programs of this host as a second initramfs, to be put behind one of ours.

The kernel unpacks concatenated archives one after the other, so what is here comes on top. Programs
are copied with the libraries that they are linked with.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from guests.cpio import Archive
from guests.errors import GuestError
from guests.initramfs import INITS, MODULES

__all__ = ["with_programs"]

# As our own, but modules get their parameters from the kernel's command line, as modprobe does it.
INIT = INITS[MODULES].replace(
    "do insmod /modules/$name.ko 2>/dev/null; done",
    """do
  options=
  for word in $(cat /proc/cmdline); do
    case $word in $name.*=*) options="$options ${word#$name.}";; esac
  done
  insmod /modules/$name.ko $options 2>/dev/null
done""",
)


def with_programs(initrd: bytes, programs: Sequence[str], files: Sequence[str] = ()) -> bytes:
    """Give the ``drivers`` image `initrd` these programs, by name, and files, by path.

    Raises `GuestError` for a program that this host does not have.
    """
    archive = Archive()
    wanted: dict[str, Path] = {}
    for program in programs:
        found = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
        if found is None:
            raise GuestError(f"{program} is not installed")
        wanted[f"sbin/{program}"] = Path(found)
        for library in _libraries(found):
            wanted[library.lstrip("/")] = Path(library)
    for path in files:
        if Path(path).is_file():
            wanted[path.lstrip("/")] = Path(path)
    for name, source in sorted(wanted.items()):
        archive.file(name, source.resolve().read_bytes(), mode=0o755)
    archive.file("init", INIT.encode(), mode=0o755)
    return initrd + archive.to_gzip()


def _libraries(program: str) -> list[str]:
    """The libraries and the loader of a program, as it names them."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return re.findall(r"(?:=> |^\s*)(/\S+)", done.stdout, re.MULTILINE)
