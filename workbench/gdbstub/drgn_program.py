"""A `drgn.Program` over the guest's memory at a moment: the one module that knows drgn.

Virtual addresses go through the page tables that the processor uses at this moment, physical ones
to RAM. Symbols come from guest memory; types need the debug information of the kernel, which its
`-dbg` package brings. Nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from workbench.dump.linux import find_kernel
from workbench.errors import InputFileError
from workbench.gdbstub import debuginfo
from workbench.gdbstub.memory import Memory
from workbench.gdbstub.symbols import guest_symbols

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.kallsyms import Symbol

__all__ = ["program"]

_MOST_READ: Final = 64 << 20
_CODE: Final = frozenset("tTwW")


def program(machine: Machine) -> tuple[Any, str]:
    """The program, and a sentence about what it lacks (empty if nothing).

    Raises `InputFileError` when drgn is not installed.
    """
    try:
        import drgn
    except ImportError:
        raise InputFileError("drgn is not installed: pip install drgn") from None
    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    made = drgn.Program(drgn.Platform(drgn.Architecture.X86_64, flags))
    symbols = guest_symbols(machine)
    is_kernel = _set_kernel(drgn, made, machine, symbols)
    _add_memory(drgn, made, machine, physical_only=is_kernel)
    if not symbols:
        return made, "there is no Linux kernel in guest memory here: memory only"
    found = _finder(drgn, symbols)
    made.register_symbol_finder("workbench", found, enable_index=0)
    return made, _add_debug_info(made, machine, symbols)


def _set_kernel(drgn: Any, made: Any, machine: Machine, symbols: list[Symbol]) -> bool:
    """Tell drgn that this is a Linux kernel, whose page tables it then walks itself."""
    kernel = find_kernel(machine, symbols)
    if kernel is None or not hasattr(made, "set_linux_kernel_custom"):
        return False
    try:
        made.set_linux_kernel_custom(kernel.vmcoreinfo, False)
    except (ValueError, LookupError, drgn.FaultError):
        return False
    return True


def _add_memory(drgn: Any, made: Any, machine: Machine, *, physical_only: bool) -> None:
    linear = Memory(machine.cpu)

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        if count > _MOST_READ:
            raise drgn.FaultError(f"expected at most {_MOST_READ:,} bytes at once", address)
        data = linear.read(address, count)
        if data is None or len(data) != count:
            raise drgn.FaultError("not mapped", address + len(data or b""))
        return data

    def read_physical(address: int, count: int, offset: int, physical: bool) -> bytes:
        return machine.memory.read(address, min(count, _MOST_READ))

    cpu = machine.cpu
    if not physical_only:
        made.add_memory_segment(0, (1 << 64) - 1, read, False)
    made.add_memory_segment(0, cpu.low_bytes, read_physical, True)
    if cpu.ram_bytes > cpu.low_bytes:
        high = cpu.ram_bytes - cpu.low_bytes
        made.add_memory_segment(1 << 32, high, read_physical, True)


def _finder(drgn: Any, symbols: list[Symbol]) -> Any:
    """What looks up names and addresses in the guest's own symbols."""
    import bisect

    ordered = sorted(symbols)
    starts = [address for address, _, _ in ordered]
    by_name: dict[str, list[int]] = {}
    for n, (_, _, name) in enumerate(ordered):
        by_name.setdefault(name, []).append(n)

    def make(n: int) -> Any:
        address, letter, name = ordered[n]
        after = next((a for a in starts[n + 1 : n + 64] if a > address), address)
        kind = drgn.SymbolKind.FUNC if letter in _CODE else drgn.SymbolKind.OBJECT
        local = letter.islower()
        binding = drgn.SymbolBinding.LOCAL if local else drgn.SymbolBinding.GLOBAL
        return drgn.Symbol(name, address, after - address, binding, kind)

    def find(prog: Any, name: str | None, address: int | None, one: bool) -> list[Any]:
        if name is not None:
            places = by_name.get(name, [])
        elif address is not None:
            n = bisect.bisect_right(starts, address) - 1
            places = [n] if n >= 0 else []
        else:
            places = list(range(len(ordered)))
        found = [make(n) for n in (places[:1] if one else places)]
        if address is not None:
            found = [s for s in found if s.address <= address < s.address + max(s.size, 1)]
        return found

    return find


def _add_debug_info(made: Any, machine: Machine, symbols: list[Symbol]) -> str:
    """Types, where they are installed."""
    name = debuginfo.release(machine, symbols)
    debug = debuginfo.find(machine, symbols=symbols)
    if debug is None:
        return (
            f"no debug information of Linux {name or '(unknown)'} is installed"
            f" (linux-image-{name}-dbg): memory and symbols, no types"
        )
    try:
        made.load_debug_info([str(debug.path)])
    except Exception as error:  # drgn's errors have no common base
        return f"{debug.path}: {error}"
    return ""
