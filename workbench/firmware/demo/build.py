"""Build guests written in GNU assembler: ``python -m workbench.firmware.demo.build``.

The result is an ELF32 file, because other multiboot loaders take no other, with 64-bit code in it;
it is linked as ELF64 and converted. Without arguments demo.elf is made anew from demo.S; the
benchmarks use `assemble` for their own guests. Needs ``as``, ``ld`` and ``objcopy`` of binutils.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOAD_GPA = 0x100000
_TOOLS = ("as", "ld", "objcopy")
# The multiboot header must lie in the first 8 KiB, so .text comes first and is not padded.
_LINKER_SCRIPT = f"""
ENTRY(start)
SECTIONS {{
    . = {LOAD_GPA:#x};
    .text : {{ *(.text .text.*) *(.rodata .rodata.*) *(.data .data.*) }}
    .bss : {{ *(.bss .bss.*) }}
    /DISCARD/ : {{ *(.note.*) *(.comment) *(.eh_frame) }}
}}
"""


def available() -> bool:
    """Tell whether the assembler, the linker and objcopy are installed."""
    return all(shutil.which(tool) for tool in _TOOLS)


def assemble(source: Path, defines: dict[str, int] | None = None) -> bytes:
    """Return the ELF32 file made from `source`, with the symbols `defines` set.

    Raises `subprocess.CalledProcessError` if the source has an error (the tools tell which, on
    standard error), and `FileNotFoundError` without binutils.
    """
    symbols = [f"--defsym={name}={value}" for name, value in (defines or {}).items()]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        script, obj = work / "link.ld", work / "guest.o"
        linked, converted = work / "guest.elf64", work / "guest.elf"
        script.write_text(_LINKER_SCRIPT)
        _run("as", "--64", "-mx86-used-note=no", f"-I{source.parent}", *symbols, "-o", obj, source)
        layout = ("-z", "max-page-size=0x1000", "-z", "noexecstack", "--build-id=none")
        _run("ld", "-m", "elf_x86_64", *layout, "-T", script, "-o", linked, obj)
        _run("objcopy", "-O", "elf32-i386", linked, converted)
        return converted.read_bytes()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def main() -> int:
    """Rebuild demo.elf."""
    if not available():
        print("build: as, ld and objcopy are needed (package binutils)", file=sys.stderr)
        return 1
    here = Path(__file__).parent
    image = assemble(here / "demo.S")
    (here / "demo.elf").write_bytes(image)
    print(f"{here / 'demo.elf'}: {len(image)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
