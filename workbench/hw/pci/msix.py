"""MSI-X: capability, table and pending bits of a function (PCI Local Bus Specification 3.0, 6.8.2).

A function that offers MSI-X makes its capability with `capability`, has a `Msix` of as many
vectors, keeps its `MsixState` in its own state, and puts the `Msix` behind the base address
register that the capability names (BIR): the table at offset 0, the pending bits at 0x800.

Deliberately not modelled: more than 64 vectors, a table that shares its BAR with other registers.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core.regs import RO, Field, Reg, RegBank, RegMap, array, on_read, on_write
from workbench.core.state import sized
from workbench.hw.pci.config import Capability

__all__ = ["ENABLE", "FUNCTION_MASK", "MSIX_CAPABILITY_ID", "Msix", "MsixState", "capability"]

MSIX_CAPABILITY_ID: Final = 0x11
VECTORS: Final = 64
PBA_OFFSET: Final = 0x800
ENABLE, FUNCTION_MASK = 1 << 15, 1 << 14
MASKED: Final = 1


def capability(offset: int, vectors: int, bir: int) -> tuple[Capability, Reg]:
    """The capability at `offset` with `vectors` entries in BAR `bir`, and its MSIX_CTRL register.

    The function stores the register as `msix_ctrl` and passes writes to `Msix.set_control`.
    """
    if not 1 <= vectors <= VECTORS:
        raise ValueError(f"expected 1 to {VECTORS} vectors, not {vectors!r}")
    control = Reg(
        "MSIX_CTRL",
        offset + 2,
        2,
        vectors - 1,
        fields=(Field("SIZE", 0, 11, RO), Field("FM", 14), Field("EN", 15)),
        ref="PCI 3.0 6.8.2.3",
    )
    place = (Field("BIR", 0, 3), Field("OFFSET", 3, 29))
    table = Reg("MSIX_TABLE", offset + 4, 4, bir, RO, place, "PCI 3.0 6.8.2.4")
    pba = Reg("MSIX_PBA", offset + 8, 4, PBA_OFFSET | bir, RO, place, "PCI 3.0 6.8.2.5")
    return Capability("MSIX", MSIX_CAPABILITY_ID, offset, (control, table, pba)), control


MSG_ADDR = array("MSG_ADDR", 0x0, 4, VECTORS, 16, ref="PCI 3.0 6.8.2.6")
MSG_UPPER = array("MSG_UPPER", 0x4, 4, VECTORS, 16, ref="PCI 3.0 6.8.2.7")
MSG_DATA = array("MSG_DATA", 0x8, 4, VECTORS, 16, ref="PCI 3.0 6.8.2.8")
VECTOR_CTRL = array(
    "VECTOR_CTRL", 0xC, 4, VECTORS, 16, reset=MASKED,
    fields=(Field("MASK", 0),),
    ref="PCI 3.0 6.8.2.9",
)  # fmt: skip
PBA = Reg("PBA", PBA_OFFSET, 8, access=RO, ref="PCI 3.0 6.8.2.10")

MAP = RegMap(
    "msix", 0x1000, (*MSG_ADDR, *MSG_UPPER, *MSG_DATA, *VECTOR_CTRL, PBA), ref="PCI 3.0 6.8.2"
)


@dataclass(slots=True)
class MsixState:
    """Table and pending bits; `control` repeats what MSIX_CTRL says."""

    msg_addr: list[int] = sized(VECTORS)
    msg_upper: list[int] = sized(VECTORS)
    msg_data: list[int] = sized(VECTORS)
    vector_ctrl: list[int] = sized(VECTORS, MASKED)
    pending: int = 0
    control: int = 0


class Msix(RegBank[MsixState]):
    """The vectors of one function; its read, write and map go behind a base address register."""

    MAP = MAP
    STATE = MsixState

    def __init__(
        self,
        vectors: int,
        send: Callable[[int, int], None],
        *,
        name: str = "msix",
        state: MsixState | None = None,
    ) -> None:
        """`send(address, data)` is `port.msi` of the function."""
        self.vectors = vectors
        self._send = send
        super().__init__(name, state=state)

    @property
    def enabled(self) -> bool:
        """Whether the function uses MSI-X instead of INTx."""
        return bool(self.state.control & ENABLE)

    def set_control(self, value: int) -> None:
        """MSIX_CTRL was written: what was held back by the function mask goes out."""
        self.state.control = value & (ENABLE | FUNCTION_MASK)
        for vector in range(self.vectors):
            self._release(vector)

    def notify(self, vector: int) -> None:
        """Interrupt of one vector: a message, or a pending bit while it is masked."""
        if not 0 <= vector < self.vectors or not self.enabled:
            return
        self.state.pending |= 1 << vector
        self._release(vector)

    def _release(self, vector: int) -> None:
        state = self.state
        bit = 1 << vector
        if not state.pending & bit or state.control & (ENABLE | FUNCTION_MASK) != ENABLE:
            return
        if not state.vector_ctrl[vector] & MASKED:
            state.pending &= ~bit
            self._send(
                state.msg_upper[vector] << 32 | state.msg_addr[vector], state.msg_data[vector]
            )

    @on_write(*VECTOR_CTRL)
    def _write_vector_ctrl(self, vector: int, old: int, new: int) -> None:
        self._release(vector)

    @on_read(PBA)
    def _read_pba(self) -> int:
        return self.state.pending
