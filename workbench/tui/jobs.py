"""What the model asks of those that work beside the screen; `worker.py` has the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from workbench.tui.worker import Job, Work


class Jobs(Protocol):
    """What runs work beside the screen."""

    job: Job | None
    waiting: list[Job]

    @property
    def busy(self) -> bool:
        """Is there a job?"""

    def submit(self, name: str, work: Work, done: Callable[[Any], None]) -> Job:
        """Do a job after those that are there."""

    def cancel(self) -> bool:
        """Stop what runs and forget what waits."""

    def close(self, seconds: float = 2.0) -> bool:
        """End it; did it?"""


MakeJobs = Callable[[str, Callable[[str], None]], Jobs]
"""Makes a worker from its name and from what is told when a job failed."""
