"""Where a timeline keeps states of its machine: placed by what they cost, within a budget.

A state is due when the guest has run for `gap_s`, and is kept if it is paid for: a share of the
time in which the guest runs may go into saving, a larger one while the user only waits to get
somewhere. What it really took is charged, all in processor time of this thread. So states lie as
far apart as a run between two of them takes, whatever the guest does; one that writes all of its
memory again and again gets fewer of them.

States stay until memory runs out; then every second one goes, and they are placed farther apart. A
few more are left *near* where the user is, so that the next step back is short. The state at the
beginning is always there: with a budget smaller than it, that is all. No state is saved before
there is room for it.
"""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass, field

from workbench.core.engine import PAGE
from workbench.core.machine import Machine
from workbench.core.pages import rebase
from workbench.core.snapshot import Snapshot
from workbench.errors import FormatError
from workbench.trace.stored import Stored

DEFAULT_BUDGET_BYTES = 1 << 30
SAVING_SHARE = 0.015
"""How much of the time in which the guest runs may go into saving."""
EXPLORING_SHARE = 0.5
"""The same while it runs only to get somewhere: the next such way is shorter."""
LENT_S = 0.025
"""Paid for from the start: guests write most of their memory early."""
GAP_S = 0.1
SPACING_ICOUNT = 5_000_000
NEAR_KEPT = 4
_WORTH = 0.1
"""Of the time that it takes to run here from the last state: no state costs more."""
_SAVE_S, _SAVE_PAGE_S = 0.0005, 1.2e-6
"""What a save takes, about: in all, and for each page written since the last one."""
_LOOKS = 8  # while the guest runs for `gap_s`
_FIRST_PAGES, _MORE_PAGES = 4096, 1024


@dataclass(slots=True)
class Checkpoints:
    """The kept states of one machine, which is at its beginning when this is made."""

    machine: Machine
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    stored: Stored | None = None
    """Those in the trace; one is read when it is wanted, and then kept like the others."""
    saving_share: float = SAVING_SHARE
    gap_s: float = GAP_S
    spacing_icount: int = SPACING_ICOUNT
    """No two are nearer to each other."""
    _kept: list[Snapshot] = field(default_factory=list)
    _near: list[Snapshot] = field(default_factory=list)
    _own: dict[int, int] = field(default_factory=dict)
    """What a state takes besides its pages, by `id`."""
    _own_bytes: int = 0
    _ran_s: float = 0.0
    """How long the guest has run since the last state, about."""
    _credit_s: float = LENT_S
    _share: float = SAVING_SHARE
    _from_icount: int = 0
    _look_icount: int = 0
    """How far to run before it is worth while to look again."""

    def __post_init__(self) -> None:
        self._add(self._kept, self.machine.save())
        self._order(_FIRST_PAGES)

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
        """Like `below`, but a later one in the trace is read: the machine may then be there.

        It is for a run from there.
        """
        self._ran_s = 0.0
        found = self.below(icount)
        if self.stored is None:
            return found
        number = bisect.bisect_right(self.stored.icounts, icount) - 1
        if number < 0 or self.stored.icounts[number] <= found.icount:
            return found
        del found
        try:
            snapshot = self.stored.load(number, self._make_room)
        except FormatError as error:
            self.stored.give_up(error.what)
            self.machine.restore(self.first)
            snapshot = None
        if snapshot is None:
            return self.below(icount)
        self._add(self._kept, snapshot)
        self._come_back()
        return snapshot

    def _place(self, icount: int) -> int:
        return bisect.bisect_right(self._kept, icount, key=lambda snapshot: snapshot.icount)

    def next_icount(self, icount: int) -> int:
        """Where a run that is at `icount` may next leave a checkpoint."""
        self._from_icount = icount
        due = self._kept[self._place(icount) - 1].icount + self.spacing_icount
        return due if due > icount else icount + max(self.spacing_icount, self._look_icount)

    def ran(self, seconds: float, exploring: bool = False) -> None:
        """The guest has run for so long: that much more may be spent on saving."""
        self._share = EXPLORING_SHARE if exploring else self.saving_share
        self._ran_s += seconds
        self._credit_s += seconds * self._share
        ran = self.machine.clock.icount - self._from_icount
        self._look_icount = int(ran / max(seconds, 1e-6) * self.gap_s) // _LOOKS

    def keep(self) -> None:
        """Leave a checkpoint here, if one is due and paid for."""
        if self._ran_s < self.gap_s:
            if self._ran_s > self.gap_s / 2:
                self._order(self.machine.cpu.count_dirty())
            return
        icount = self.machine.clock.icount
        place, least = self._place(icount), self.spacing_icount
        if icount - self._kept[place - 1].icount < least:
            return
        if place < len(self._kept) and self._kept[place].icount - icount < least:
            return
        started = time.thread_time()
        pages = self.machine.cpu.count_dirty()
        price_s = _SAVE_S + _SAVE_PAGE_S * pages
        if price_s > min(self._credit_s, self._ran_s * max(_WORTH, self._share)):
            self._order(pages)
        elif self._make_room():
            self._add(self._kept, self.machine.save())
            self._come_back()
            self._ran_s = 0.0
        self._credit_s -= time.thread_time() - started

    def _order(self, pages: int) -> None:
        """Let memory be at hand for a state with so many pages and some more."""
        pages += _MORE_PAGES
        if self.used_bytes + pages * PAGE <= self.budget_bytes:
            self.machine.pages.prepare(pages)

    def keep_near(self) -> None:
        """Leave one here that goes when others like it have come."""
        icount = self.machine.clock.icount
        if self.below(icount).icount == icount:
            return
        snapshot = self.spare()
        if snapshot is None:
            return
        self._add(self._near, snapshot)
        del snapshot
        if len(self._near) > NEAR_KEPT:
            self._drop(self._near, slice(1))
        self._come_back()

    def spare(self) -> Snapshot | None:
        """A state as it is now that is not kept here; None if there is no room for it."""
        if not self._make_room():
            return None
        return self.machine.save()

    def _add(self, states: list[Snapshot], snapshot: Snapshot) -> None:
        below = self.below(snapshot.icount) if self._kept else None
        own = self._own[id(snapshot)] = snapshot.own_bytes(below)
        self._own_bytes += own
        if states is self._near:
            states.append(snapshot)
        else:
            bisect.insort(states, snapshot, key=lambda other: other.icount)

    def _drop(self, states: list[Snapshot], which: slice) -> None:
        for snapshot in states[which]:
            self._own_bytes -= self._own.pop(id(snapshot))
        del states[which]

    def _make_room(self, pages: int | None = None) -> bool:
        """Can a state as it is now be kept, or so many pages?  Others make way, unless it is much
        of all there is.
        """
        while True:
            # The fewer are left, the less is shared: it is counted anew.
            wanted = self.machine.cpu.count_dirty() if pages is None else pages
            need = wanted * PAGE + self._own_bytes // len(self._own)
            if self.used_bytes + need <= self.budget_bytes:
                return True
            if need > self.budget_bytes // 4 or not self._drop_some():
                return False

    def _come_back(self) -> None:
        """Come back below the budget."""
        while self.used_bytes > self.budget_bytes and self._drop_some():
            pass

    def _drop_some(self) -> bool:
        """Give memory back; False if there is no more to give."""
        if self.stored is not None:
            self.stored.forget()
        if self._near:
            self._drop(self._near, slice(1))
        elif len(self._kept) > 1:
            self.spacing_icount *= 2
            self.gap_s *= 2
            self._drop(self._kept, slice(1, None, 2))
            self._recount()
        else:
            return False
        # What was saved last must not live on because the next save would share it.
        rebase(self.machine.cpu, self.below(self.machine.clock.icount).ram)
        return True

    def _recount(self) -> None:
        """States share what others hold that went."""
        every = self.all()
        pairs = zip(every, [None, *every], strict=False)
        self._own = {id(snapshot): snapshot.own_bytes(before) for snapshot, before in pairs}
        self._own_bytes = sum(self._own.values())
