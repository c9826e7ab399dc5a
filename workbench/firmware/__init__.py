"""Boot loaders: they put a guest image into a machine that is fresh from reset.

`load` takes whatever ``--kernel`` names, by its contents: a Linux bzImage, or a multiboot 1 guest;
`load_bios` what ``--bios`` names, `bios_kernel` a kernel that this boots.
"""

from typing import TYPE_CHECKING

from workbench.firmware import linux, multiboot
from workbench.firmware.bios import load as load_bios
from workbench.firmware.bios import plug_rom
from workbench.firmware.bioskernel import ROM_NAME as KERNEL_ROM
from workbench.firmware.bioskernel import items as bios_kernel
from workbench.firmware.errors import LoaderError

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["KERNEL_ROM", "LoaderError", "bios_kernel", "load", "load_bios", "plug_rom"]


def load(
    machine: "Machine",
    kernel: bytes,
    initrd: bytes | None = None,
    cmdline: str = "",
) -> None:
    """Load `kernel` by the boot protocol that it has; a multiboot guest gets `initrd` as a module.

    Raises `LoaderError`, whose message is one sentence, if the image cannot be booted.
    """
    if not linux.is_bzimage(kernel) and multiboot.find_header(kernel) is not None:
        modules = [("initrd", initrd)] if initrd is not None else []
        multiboot.load(machine, kernel, cmdline, modules)
    else:
        linux.load(machine, kernel, initrd, cmdline)
