"""Machines that are dropped give their memory back when it is needed."""

from __future__ import annotations

from workbench.core.config import MachineConfig
from workbench.core.machine import Machine


def test_fifty_machines_one_after_the_other() -> None:
    for _ in range(50):
        assert Machine(MachineConfig(ram_bytes=1 << 20)).clock.icount == 0
