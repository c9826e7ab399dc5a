"""What the recorder and the replayer need of a machine; `workbench.core.machine.Machine` fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

Poll = Callable[[], bool]
"""Called some times a second while the guest runs; True ends the run."""


class StopLike(Protocol):
    """Why `run` returned."""

    @property
    def kind(self) -> str:
        """`icount`, `shutdown`, `reset`, `triple-fault`, `halted`, `idle`, `interrupted`,
        `diverged`.
        """

    @property
    def code(self) -> int:
        """The code of a shutdown."""

    @property
    def reason(self) -> str:
        """In words."""


class InputLike(Protocol):
    """One input that was delivered."""

    @property
    def icount(self) -> int:
        """When, in instructions."""

    @property
    def time_ps(self) -> int:
        """When, in guest time."""

    @property
    def target(self) -> str:
        """To whom."""

    @property
    def kind(self) -> str:
        """What it is."""

    @property
    def data(self) -> bytes:
        """The input itself."""


class ClockLike(Protocol):
    """Guest time."""

    icount: int

    @property
    def now_ps(self) -> int:
        """Guest time in picoseconds."""


class InputsLike(Protocol):
    """The one seam for what comes from outside."""

    wake: Callable[[], None] | None
    """Called by `post`, from the thread that posts."""

    @property
    def waiting(self) -> bool:
        """Is there an input of the host that is not delivered yet?"""

    def post(self, target: str, kind: str, data: bytes) -> None:
        """Add an input from the host; ignored in replay."""

    def schedule(self, time_ps: int, target: str, kind: str, data: bytes) -> None:
        """Add an input that comes at a guest time."""

    def replay(self, inputs: Iterable[Any]) -> None:
        """Take these inputs instead of the host's."""


class CpuLike(Protocol):
    """The processor's registers, by name."""

    def get(self, name: str) -> int:
        """Read one."""


class MachineLike(Protocol):
    """A machine that can run, be watched, and be compared."""

    observers: list[Any]
    rest: Callable[[int], int] | None
    """How far a halted guest goes that would go on to a guest time in ps; it may wait there."""

    @property
    def clock(self) -> ClockLike:
        """Its clock."""

    @property
    def inputs(self) -> InputsLike:
        """Its inputs."""

    @property
    def cpu(self) -> CpuLike:
        """Its processor."""

    def run(self, until_icount: int | None = None, until_ps: int | None = None) -> StopLike:
        """Run until something happens, at the latest to that instruction count; a guest that is
        halted, to that time.
        """

    def interrupt(self) -> None:
        """Ask `run` to return at the next boundary."""

    def digest(self) -> bytes:
        """Digest of the whole state."""

    @property
    def undefined(self) -> Mapping[bytes, int]:
        """How often the guest executed bytes that are no instruction of this processor."""

    def undefined_opcodes(self) -> list[tuple[str, str, int]]:
        """The same for people: bytes, disassembly, times."""
