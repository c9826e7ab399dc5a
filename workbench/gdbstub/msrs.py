"""Model-specific registers as a debugger reads them: by number or name, without RDMSR."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from workbench.core import control as ctl
from workbench.core.layout import SEGMENTS
from workbench.core.msr import TABLE
from workbench.gdbstub.commands import Wrong

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["msr_names", "msr_text"]

_FIELDS: Final = ((ctl.MSR_EFER, "efer"), *((number, name) for number, name, _ in ctl.FIELD_MSRS))
_BASES: Final = ((ctl.MSR_FS_BASE, "fs"), (ctl.MSR_GS_BASE, "gs"))
_NAMES: Final = {0x1B: "IA32_APIC_BASE", 0x6E0: "IA32_TSC_DEADLINE"}
_Read = Callable[[], int]


def _all(machine: Machine) -> dict[int, tuple[str, _Read]]:
    cpu, msrs = machine.cpu, machine.system.msrs
    found: dict[int, tuple[str, _Read]] = {
        ctl.MSR_TSC: ("IA32_TIME_STAMP_COUNTER", lambda: machine.system.tsc(cpu))
    }
    for number, row in TABLE.items():
        found[number] = row.name, partial(msrs.value, number)
    for number, (read, _) in machine.msr_handlers.items():
        found[number] = _NAMES.get(number, f"MSR_{number:X}"), read
    for number, field in _FIELDS:
        found[number] = f"IA32_{field.upper()}", partial(cpu.get, field)
    for number, segment in _BASES:
        base = partial(cpu.get, "seg_base", SEGMENTS.index(segment))
        found[number] = f"IA32_{segment.upper()}_BASE", base
    return dict(sorted(found.items()))


def msr_names(machine: Machine) -> list[str]:
    """The names that `msr_text` takes."""
    return [name for name, _ in _all(machine).values()]


def msr_text(machine: Machine, which: str) -> str:
    """One register by name or number, or all without one; raises `Wrong`."""
    found = _all(machine)
    if which:
        try:
            number = int(which, 0)
        except ValueError:
            number = next((n for n, (name, _) in found.items() if name == which.upper()), -1)
        if number not in found:
            raise Wrong(f"expected the name or number of an MSR that there is, not {which!r:.80}")
        found = {number: found[number]}
    return "\n".join(
        f"{number:#010x}  {name:<24} {read():#x}" for number, (name, read) in found.items()
    )
