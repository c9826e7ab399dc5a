"""From a command line to a testbed with everything plugged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.core.config import MachineConfig
from workbench.errors import UsageError
from workbench.qtest.bios import config_of, plug_bios
from workbench.qtest.monitor import Event, Monitor
from workbench.qtest.options import Wanted
from workbench.qtest.plug import Plug
from workbench.qtest.testbed import Testbed

__all__ = ["Assembly", "assemble"]


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts, which know each other."""

    testbed: Testbed
    plug: Plug
    monitor: Monitor


def _nobody(name: str, data: dict[str, Any] | None = None) -> None:
    """Hears no event."""


def assemble(
    wanted: Wanted,
    event: Event = _nobody,
    *,
    timed: bool = False,
    firmware: bool = False,
    epoch_s: int = 0,
) -> Assembly:
    """Build what `wanted` says, its clock at `epoch_s` (seconds since 1970). With `firmware` it is
    left as firmware leaves it, else as a reset does, with IDE decoded and all that firmware finds.
    Raises WorkbenchError.
    """
    for_bios = None if firmware else config_of(wanted)
    try:
        config = MachineConfig(wanted.ram_bytes, rtc_epoch_s=epoch_s, firmware=for_bios)
    except ValueError as error:
        raise UsageError(str(error)) from None
    testbed = Testbed(config, timed=timed)
    if for_bios is not None:
        plug_bios(testbed, wanted)
    plug = Plug(testbed, wanted)
    monitor = Monitor(testbed, plug, event)
    if firmware:
        testbed.power_on = testbed.board.post
        testbed.power_on()
    return Assembly(testbed, plug, monitor)
