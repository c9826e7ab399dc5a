"""MSI: the capability of a function (PCI Local Bus Specification 3.0, 6.8.1).

A function that offers MSI makes its capability with `capability`, has the fields of `MsiFields` in
its state, as the registers are called, and calls `Msi.notify`. After writes to its configuration
space it calls `Msi.release`: what was held back by a mask goes out then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from workbench.core.regs import RO, Field, Reg
from workbench.hw.pci.config import Capability

__all__ = ["MSI_CAPABILITY_ID", "Msi", "MsiFields", "capability"]

MSI_CAPABILITY_ID: Final = 0x05
MOST_VECTORS: Final = 32
ENABLE: Final = 1 << 0
MME_SHIFT, MME_MASK = 4, 7


def capability(
    offset: int, vectors: int = 1, *, wide: bool = True, maskable: bool = False
) -> Capability:
    """The capability at `offset`: `vectors` messages are asked for, `wide` has 64 bits of address,
    `maskable` a mask and a pending bit for each.
    """
    if not 1 <= vectors <= MOST_VECTORS or vectors & vectors - 1:
        raise ValueError(f"expected a power of two up to {MOST_VECTORS}, not {vectors!r}")
    fixed = (vectors.bit_length() - 1) << 1 | wide << 7 | maskable << 8
    control = (
        Field("EN", 0),
        Field("MMC", 1, 3, RO),
        Field("MME", MME_SHIFT, 3),
        Field("C64", 7, access=RO),
        Field("PVM", 8, access=RO),
    )
    data = offset + (12 if wide else 8)
    ref = "PCI 3.0 6.8.1"
    regs = [
        Reg("MSI_CTRL", offset + 2, 2, fixed, fields=control, ref=f"{ref}.3"),
        Reg("MSI_ADDR", offset + 4, 4, fields=(Field("ADDR", 2, 30),), ref=f"{ref}.4"),
        Reg("MSI_DATA", data, 2, ref=f"{ref}.6"),
    ]
    if wide:
        regs.append(Reg("MSI_UPPER", offset + 8, 4, ref=f"{ref}.5"))
    if maskable:
        bits = (Field("BITS", 0, vectors),)
        regs.append(Reg("MSI_MASK", data + 4, 4, fields=bits, ref=f"{ref}.7"))
        regs.append(Reg("MSI_PENDING", data + 8, 4, 0, RO, bits, f"{ref}.8"))
    return Capability("MSI", MSI_CAPABILITY_ID, offset, tuple(regs))


class MsiFields(Protocol):
    """What the state of such a function has; the last two only if it is maskable."""

    msi_ctrl: int
    msi_addr: int
    msi_upper: int
    msi_data: int
    msi_mask: int
    msi_pending: int


class Msi:
    """The messages of one function; `send(address, data)` writes one."""

    def __init__(self, state: MsiFields, send: Callable[[int, int], None]) -> None:
        self.state = state
        self._send = send

    @property
    def enabled(self) -> bool:
        """Whether the function uses MSI instead of INTx."""
        return bool(self.state.msi_ctrl & ENABLE)

    @property
    def allocated(self) -> int:
        """How many messages software has given to the function."""
        control = self.state.msi_ctrl
        return 1 << min(control >> MME_SHIFT & MME_MASK, control >> 1 & 7)

    def notify(self, vector: int = 0) -> None:
        """Interrupt `vector`; with fewer messages than vectors several share one."""
        if self.enabled:
            self.state.msi_pending |= 1 << vector % self.allocated
            self.release()

    def release(self) -> None:
        """Send what is pending and not masked."""
        state = self.state
        if not self.enabled:
            return
        for vector in range(self.allocated):
            bit = 1 << vector
            if state.msi_pending & bit and not state.msi_mask & bit:
                state.msi_pending &= ~bit
                data = state.msi_data & ~(self.allocated - 1) | vector
                self._send(state.msi_upper << 32 | state.msi_addr, data)
