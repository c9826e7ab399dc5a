"""Make the guests: kernels exactly as shipped, each with its initramfs images.

The layout of the cache directory is::

    FLAVOUR/vmlinuz          the kernel
    FLAVOUR/boot.cpio.gz     runs some commands, then powers off
    FLAVOUR/drivers.cpio.gz  loads drivers, then runs what the command line says
    FLAVOUR/shell.cpio.gz    an interactive shell on the serial port
    FLAVOUR/PACKAGES         what it was made from

On Debian the kernels are what ``linux-image-cloud-amd64``, ``linux-image-amd64`` and, for 32 bit,
``linux-image-686-pae`` resolve to; on Ubuntu, what ``linux-image-virtual`` and
``linux-image-generic`` resolve to.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from guests.apt import Apt
from guests.errors import GuestError
from guests.initramfs import INITS, initramfs
from guests.modules import WANTED, collect

# Meta packages by flavour, the first that the distribution has is taken.
FLAVOURS = {
    "cloud": ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-generic"),
    "generic": ("linux-image-amd64", "linux-image-generic"),
    "pae": ("linux-image-686-pae",),
}
_ARCHITECTURES = {"pae": "i386"}
_KERNEL_PACKAGE = r"linux-image-(?:unsigned-)?\d+\.\d\S*"


@dataclass(frozen=True, slots=True)
class Guest:
    """One flavour of kernel with its initramfs images, all of them existing files."""

    flavour: str
    kernel: Path
    images: dict[str, Path]
    packages: tuple[str, ...]


def cache_directory() -> Path:
    """Return where guests are kept.

    ``$WORKBENCH_GUESTS`` if set, else ``workbench/guests`` in the user's XDG cache directory.
    """
    chosen = os.environ.get("WORKBENCH_GUESTS")
    if chosen:
        return Path(chosen)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "workbench" / "guests"


def ensure(flavour: str, *, rebuild: bool = False) -> Guest:
    """Return the guest `flavour`, made now if it is not in the cache.

    Raises `GuestError` if it cannot be made, for example without a network.
    """
    if flavour not in FLAVOURS:
        raise GuestError(f"expected a flavour of {', '.join(FLAVOURS)}, not {flavour!r}")
    cache = cache_directory()
    if not rebuild and (guest := _cached(cache, flavour)) is not None:
        return guest
    apt = Apt(cache / "packages", _ARCHITECTURES.get(flavour, ""))
    kernel_deb = apt.download(apt.resolve(FLAVOURS[flavour], _KERNEL_PACKAGE))
    busybox_deb = apt.download("busybox-static")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{flavour}-") as name:
        work = Path(name)
        apt.unpack(kernel_deb, work / "kernel")
        apt.unpack(busybox_deb, work / "busybox")
        made = work / flavour
        made.mkdir()
        shutil.copyfile(_kernel_of(work / "kernel", kernel_deb), made / "vmlinuz")
        busybox = _busybox_of(work / "busybox")
        modules = collect(work / "kernel")
        for variant in INITS:
            (made / f"{variant}.cpio.gz").write_bytes(initramfs(busybox, variant, modules))
        (made / "PACKAGES").write_text(f"{kernel_deb.name}\n{busybox_deb.name}\n")
        (made / "FORMAT").write_text(_format())
        _publish(made, cache / flavour)
    ready = _cached(cache, flavour)
    assert ready is not None
    return ready


def _publish(made: Path, target: Path) -> None:
    """Rename `made` to `target`; where another process was first, its result stays."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        made.rename(target)
    except OSError:
        if not (target / "FORMAT").is_file():
            raise


def _cached(cache: Path, flavour: str) -> Guest | None:
    here = cache / flavour
    try:
        if (here / "FORMAT").read_text() != _format():
            return None
        packages = tuple((here / "PACKAGES").read_text().split())
    except OSError:
        return None
    images = {variant: here / f"{variant}.cpio.gz" for variant in INITS}
    kernel = here / "vmlinuz"
    if not all(path.is_file() for path in (kernel, *images.values())):
        return None
    return Guest(flavour, kernel, images, packages)


def _format() -> str:
    """Return what the images depend on besides the packages: a changed script remakes them."""
    parts = [f"--- {variant}\n{script}" for variant, script in INITS.items()]
    return "\n".join([*parts, *WANTED])


def _kernel_of(tree: Path, deb: Path) -> Path:
    found = sorted((tree / "boot").glob("vmlinuz-*")) + sorted(
        path for path in tree.glob("**/lib/modules/*/vmlinuz") if path.is_file()
    )
    if not found:
        raise GuestError(f"{deb.name} contains no boot/vmlinuz")
    return found[0]


def _busybox_of(tree: Path) -> bytes:
    for place in ("usr/bin/busybox", "bin/busybox"):
        path = tree / place
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
    raise GuestError("the package busybox-static contains no busybox")


def describe(guest: Guest) -> str:
    """Return a few lines for people: what was made, from which packages, and where it is."""
    version = next(
        (m[1] for name in guest.packages if (m := re.match(r"linux-image-(\S+?)_", name))), "?"
    )
    lines = [f"{guest.flavour}: Linux {version} (from {', '.join(guest.packages)})"]
    lines += [f"  {path}" for path in (guest.kernel, *guest.images.values())]
    return "\n".join(lines)
