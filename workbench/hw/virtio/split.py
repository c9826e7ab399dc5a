"""Split virtqueues (Virtual I/O Device 1.2, 2.7).

Descriptor table of 16 bytes an entry; available ring: flags, idx, ring[], used_event; used ring:
flags, idx, ring[] of (id, len), avail_event. Indices are 16 bits and run freely.
"""

from __future__ import annotations

import struct
from collections import deque

from workbench.hw.virtio.queue import (
    DESC_BYTES,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    Chain,
    Memory,
    QueueState,
    Virtqueue,
    VirtqueueError,
)

__all__ = ["SplitQueue", "legacy_layout"]

_DESC = struct.Struct("<QIHH")
_USED_ELEM = struct.Struct("<II")
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1
MOST_AHEAD = 64
ALL_ONES = (1 << 64) - 1


def legacy_layout(size: int, gpa: int, align: int = 4096) -> tuple[int, int, int]:
    """Addresses of the three parts of a queue whose pages start at `gpa` (2.7.2)."""
    avail = gpa + DESC_BYTES * size
    used = -(-(avail + 6 + 2 * size) // align) * align
    return gpa & ALL_ONES, avail & ALL_ONES, used & ALL_ONES


class SplitQueue(Virtqueue):
    """The layout that all drivers know."""

    def __init__(self, index: int, most: int, state: QueueState, memory: Memory, features: int):
        """See `Virtqueue`."""
        super().__init__(index, most, state, memory, features)
        self._ahead: deque[int] = deque()  # heads of chains from next_avail on
        self._used = bytearray()  # elements that are not in the used ring yet

    def check(self) -> None:
        super().check()
        if self.state.size & self.state.size - 1:
            raise VirtqueueError(f"a split queue of {self.state.size} entries, no power of two")

    def areas(self) -> list[tuple[int, int, int]]:
        state = self.state
        return [
            (state.desc, DESC_BYTES * state.size, 16),
            (state.driver, 6 + 2 * state.size, 2),
            (state.device, 6 + 8 * state.size, 4),
        ]

    def _u16(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 2), "little")

    def _pop(self) -> Chain | None:
        state = self.state
        if not self._ahead:
            pending = self._u16(state.driver + 2) - state.next_avail & 0xFFFF
            if not pending:
                return None
            if pending > state.size:
                raise VirtqueueError(f"{pending} buffers available in a queue of {state.size}")
            at = state.next_avail % state.size
            count = min(pending, state.size - at, MOST_AHEAD) if self.gathering else 1
            raw = self.memory.read(state.driver + 4 + 2 * at, 2 * count)
            self._ahead.extend(memoryview(raw).cast("H"))
        head = self._ahead.popleft()
        if head >= state.size:
            raise VirtqueueError(f"descriptor {head} in a queue of {state.size}")
        chain = self._chain(head)
        state.next_avail = state.next_avail + 1 & 0xFFFF
        return chain

    def _chain(self, head: int) -> Chain:
        state, memory = self.state, self.memory
        chain = Chain(memory, head)
        index, left = head, state.size
        while True:
            gpa, length_bytes, flags, after = _DESC.unpack(
                memory.read(state.desc + DESC_BYTES * index, DESC_BYTES)
            )
            if flags & DESC_F_INDIRECT:
                if flags & DESC_F_NEXT:
                    raise VirtqueueError("an indirect descriptor with a next one")
                self._add_table(chain, gpa, length_bytes)
                return chain
            chain.add(gpa, length_bytes, flags)
            if not flags & DESC_F_NEXT:
                return chain
            left -= 1
            if not left:
                raise VirtqueueError("a loop of descriptors")
            if after >= state.size:
                raise VirtqueueError(f"descriptor {after} in a queue of {state.size}")
            index = after

    def _add_table(self, chain: Chain, gpa: int, length_bytes: int) -> None:
        table = self._indirect_table(gpa, length_bytes)
        count = length_bytes // DESC_BYTES
        if self._add_in_order(chain, table, count):
            return
        index = 0
        for _ in range(count):
            gpa, length_bytes, flags, after = _DESC.unpack_from(table, DESC_BYTES * index)
            if flags & DESC_F_INDIRECT:
                raise VirtqueueError("an indirect descriptor in an indirect table")
            chain.add(gpa, length_bytes, flags)
            if not flags & DESC_F_NEXT:
                return
            if after >= count:
                raise VirtqueueError(f"descriptor {after} in an indirect table of {count}")
            index = after
        raise VirtqueueError("a loop of descriptors in an indirect table")

    def _add_in_order(self, chain: Chain, table: memoryview, count: int) -> bool:
        """Take a table whose entries follow each other to its end, as drivers make them, at once;
        False, and nothing is taken, for any other or for one that breaks a rule.
        """
        halves = table.cast("H")
        flags, after = halves[6::8].tolist(), halves[7::8].tolist()
        readable = count - sum(flag >> 1 & 1 for flag in flags)
        wanted = [DESC_F_NEXT] * readable + [DESC_F_NEXT | DESC_F_WRITE] * (count - readable)
        wanted[-1] &= ~DESC_F_NEXT
        if flags != wanted or after[:-1] != list(range(1, count)):
            return False
        gpas, lengths = table.cast("Q")[::2].tolist(), table.cast("I")[2::4].tolist()
        return chain.add_all(gpas, lengths, readable)

    def _push(self, chain_id: int, slots: int, written_bytes: int) -> None:
        state = self.state
        self._used += _USED_ELEM.pack(chain_id, written_bytes)
        state.next_used = state.next_used + 1 & 0xFFFF
        if not self.gathering:
            self._flush()

    def _flush(self) -> None:
        state, used = self.state, bytes(self._used)
        self._look_again()
        if not used:
            return
        self._used.clear()
        at = (state.next_used - len(used) // 8) % state.size
        first = 8 * (state.size - at)
        self.memory.write(state.device + 4 + 8 * at, used[:first])
        if used[first:]:
            self.memory.write(state.device + 4, used[first:])
        self.memory.write(state.device + 2, state.next_used.to_bytes(2, "little"))

    def _look_again(self) -> None:
        self._ahead.clear()

    def _wants_interrupt(self) -> bool:
        state = self.state
        old, state.signalled = state.signalled, state.next_used
        new = state.next_used
        if old == new:
            return False
        if self.event_idx:
            event = self._u16(state.driver + 4 + 2 * state.size)
            return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
        return not self._u16(state.driver) & AVAIL_F_NO_INTERRUPT

    def _ask(self, wanted: bool) -> None:
        state = self.state
        if self.event_idx:
            if wanted:
                gpa = state.device + 4 + 8 * state.size
                self.memory.write(gpa, state.next_avail.to_bytes(2, "little"))
        else:
            flags = 0 if wanted else USED_F_NO_NOTIFY
            self.memory.write(state.device, flags.to_bytes(2, "little"))
