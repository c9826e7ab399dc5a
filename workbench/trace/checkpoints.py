"""Where a timeline keeps states of its machine: placed by what they cost, within a budget.

Checkpoints stay until memory runs out; then every second one goes, and they are placed farther
apart. A few more are left *near* where the user is, so that the next step back is short. The state
at the beginning is always there: with a budget smaller than it, that is all.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from workbench.core.machine import Machine
from workbench.core.pages import rebase
from workbench.core.snapshot import Snapshot
from workbench.errors import FormatError
from workbench.trace.stored import Stored

DEFAULT_BUDGET_BYTES = 1 << 30
SAVING_SHARE = 0.05
"""How much of the time in which the guest runs may go into saving."""
SPACING_ICOUNT = 5_000_000
NEAR_KEPT = 4
_SAVE_S, _SAVE_PAGE_S = 0.001, 3e-6
"""What a save takes, about: in all, and for each page written since the last one."""


@dataclass(slots=True)
class Checkpoints:
    """The kept states of one machine, which is at its beginning when this is made."""

    machine: Machine
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    stored: Stored | None = None
    """Those in the trace; one is read when it is wanted, and then kept like the others."""
    saving_share: float = SAVING_SHARE
    spacing_icount: int = SPACING_ICOUNT
    _kept: list[Snapshot] = field(default_factory=list)
    _near: list[Snapshot] = field(default_factory=list)
    _own_bytes: int = 0
    _ran_s: float = 0.0

    def __post_init__(self) -> None:
        self._kept.append(self.machine.save())
        self._recount()

    @property
    def first(self) -> Snapshot:
        """The beginning."""
        return self._kept[0]

    def all(self) -> list[Snapshot]:
        """All states, in order."""
        return sorted([*self._kept, *self._near], key=lambda snapshot: snapshot.icount)

    @property
    def used_bytes(self) -> int:
        """What the states take together, about."""
        return self.machine.pages.used_bytes + self._own_bytes

    def below(self, icount: int) -> Snapshot:
        """The last state that is not behind `icount`."""
        found = self._kept[self._place(icount) - 1]
        for snapshot in self._near:
            if found.icount < snapshot.icount <= icount:
                found = snapshot
        return found

    @property
    def problem(self) -> str:
        """Why those in the trace are not used, as a sentence; empty while they are."""
        return self.stored.problem if self.stored else ""

    def icounts(self) -> list[int]:
        """Where there are states, in memory or in the trace, in order."""
        stored = self.stored.icounts if self.stored else []
        return sorted({*stored, *(snapshot.icount for snapshot in self.all())})

    def nearest(self, icount: int) -> Snapshot:
        """Like `below`, but a later one in the trace is read: the machine may then be there."""
        found = self.below(icount)
        if self.stored is None:
            return found
        number = bisect.bisect_right(self.stored.icounts, icount) - 1
        if number < 0 or self.stored.icounts[number] <= found.icount:
            return found
        del found
        try:
            snapshot = self.stored.load(number)
        except FormatError as error:
            self.stored.give_up(error.what)
            self.machine.restore(self.first)
            return self.below(icount)
        place = self._place(snapshot.icount)
        self._kept.insert(place, snapshot)
        self._own_bytes += snapshot.own_bytes(self._kept[place - 1])
        self._thin()
        return snapshot

    def _place(self, icount: int) -> int:
        return bisect.bisect_right(self._kept, icount, key=lambda snapshot: snapshot.icount)

    def next_icount(self, icount: int) -> int:
        """Where a run that is at `icount` may next leave a checkpoint."""
        due = self._kept[self._place(icount) - 1].icount + self.spacing_icount
        return due if due > icount else icount + self.spacing_icount // 4 + 1

    def ran(self, seconds: float) -> None:
        """The guest has run for so long: that much more may be spent on saving."""
        self._ran_s += seconds

    def keep(self) -> None:
        """Leave a checkpoint here, if the last one is far away and it does not cost too much."""
        icount = self.machine.clock.icount
        place = self._place(icount)
        below = self._kept[place - 1]
        if icount - below.icount < self.spacing_icount:
            return
        expected_s = _SAVE_S + _SAVE_PAGE_S * len(self.machine.cpu.dirty_pages())
        if expected_s > self.saving_share * self._ran_s:
            return
        snapshot = self.machine.save()
        self._kept.insert(place, snapshot)
        self._own_bytes += snapshot.own_bytes(below)
        self._ran_s = 0.0
        del snapshot, below  # what goes must not be held here
        self._thin()

    def keep_near(self) -> None:
        """Leave one here that goes when others like it have come."""
        below = self.below(self.machine.clock.icount)
        if below.icount == self.machine.clock.icount:
            return
        snapshot = self.machine.save()
        self._near.append(snapshot)
        self._own_bytes += snapshot.own_bytes(below)
        if len(self._near) > NEAR_KEPT:
            del self._near[0]
        del snapshot, below
        self._thin()

    def _thin(self) -> None:
        """Come back below the budget."""
        if self.used_bytes <= self.budget_bytes:
            return
        if self.stored is not None:
            self.stored.forget()
        self._recount()
        while self.used_bytes > self.budget_bytes and (self._near or len(self._kept) > 1):
            if self._near:
                del self._near[0]
            else:
                self.spacing_icount *= 2
                del self._kept[1::2]
            # What was saved last must not live on because the next save would share it.
            rebase(self.machine.cpu, self.below(self.machine.clock.icount).ram)
            self._recount()

    def _recount(self) -> None:
        every = self.all()
        pairs = zip(every, [None, *every], strict=False)
        self._own_bytes = sum(snapshot.own_bytes(before) for snapshot, before in pairs)
