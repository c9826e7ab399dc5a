"""What a machine is made of: everything that a replay must have the same, as JSON in the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LEAST_RAM, MOST_RAM = 1 << 20, 64 << 30


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """One machine.  Times are guest time: a retired instruction takes `ps_per_insn` picoseconds, a
    device
    access `access_cost_ps` more (so that loops which poll a timer chip take as many rounds as on
    real
    hardware, where an access costs about a microsecond).
    """

    ram_bytes: int = 256 << 20
    ps_per_insn: int = 1000
    access_cost_ps: int = 500_000
    tsc_period_ps: int = 1000
    rtc_epoch_s: int = 0
    seed: int = 0
    serial_ports: tuple[str, ...] = ("com1",)
    board: str = "pc"

    def __post_init__(self) -> None:
        if not LEAST_RAM <= self.ram_bytes <= MOST_RAM or self.ram_bytes % 4096:
            raise ValueError(
                f"expected 1 MiB to 64 GiB of RAM in whole pages, not {self.ram_bytes} bytes"
            )
        for name in ("ps_per_insn", "tsc_period_ps"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise ValueError(f"expected {name} from 1 to 1000000, not {getattr(self, name)!r}")
        if not 0 <= self.access_cost_ps <= 10**12:
            raise ValueError(
                f"expected access_cost_ps from 0 to 10^12, not {self.access_cost_ps!r}"
            )
        if self.board != "pc":
            raise ValueError(f"expected the board 'pc', not {self.board!r}")

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "serial_ports": list(self.serial_ports)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MachineConfig:
        """From plain values; an unknown or wrong one is a ValueError that names it."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in data.items():
            if name not in known:
                raise ValueError(f"expected a setting of a machine, not {name!r}")
            if name == "serial_ports":
                if not isinstance(value, list | tuple) or not all(
                    isinstance(v, str) for v in value
                ):
                    raise ValueError(f"expected names of serial ports, not {value!r}")
                value = tuple(value)
            elif name == "board":
                if not isinstance(value, str):
                    raise ValueError(f"expected the name of a board, not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"expected a whole number for {name}, not {value!r}")
            values[name] = value
        return cls(**values)
