"""The embedded default guest, a multiboot program; its source is demo.S beside this file."""

from importlib.resources import files

__all__ = ["image", "source"]


def image() -> bytes:
    """Return the demo guest as an ELF file with a multiboot 1 header."""
    return files(__name__).joinpath("demo.elf").read_bytes()


def source() -> str:
    """Return the assembler source of the demo guest."""
    return files(__name__).joinpath("demo.S").read_text(encoding="utf-8")
