"""Packed virtqueues (Virtual I/O Device 1.2, 2.8).

One ring of 16-byte descriptors (addr, len, id, flags) for both directions. A descriptor is
available when its AVAIL bit equals the driver's wrap counter and its USED bit does not, and used
when both equal the device's. The event suppression structures of driver and device are
(off_wrap, flags).
"""

from __future__ import annotations

import struct

from workbench.hw.virtio.queue import (
    DESC_BYTES,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    Chain,
    Virtqueue,
    VirtqueueError,
)

__all__ = ["PackedQueue"]

_DESC = struct.Struct("<QIHH")
_USED = struct.Struct("<IHH")
_EVENT = struct.Struct("<HH")
DESC_F_AVAIL, DESC_F_USED = 1 << 7, 1 << 15
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2


class PackedQueue(Virtqueue):
    """The layout with one ring."""

    def areas(self) -> list[tuple[int, int, int]]:
        state = self.state
        return [
            (state.desc, DESC_BYTES * state.size, 16),
            (state.driver, 4, 4),
            (state.device, 4, 4),
        ]

    def check(self) -> None:
        super().check()
        state = self.state
        if state.next_avail >= state.size or state.next_used >= state.size:
            raise VirtqueueError(f"a position after the end of a queue of {state.size}")

    def _descriptor(self, index: int) -> tuple[int, int, int, int]:
        raw = self.memory.read(self.state.desc + DESC_BYTES * index, DESC_BYTES)
        gpa, length_bytes, buffer_id, flags = _DESC.unpack(raw)
        return gpa, length_bytes, buffer_id, flags

    def _pop(self) -> Chain | None:
        state = self.state
        index = state.next_avail
        gpa, length_bytes, buffer_id, flags = self._descriptor(index)
        wrap = state.avail_wrap
        if bool(flags & DESC_F_AVAIL) != wrap or bool(flags & DESC_F_USED) == wrap:
            return None
        chain = Chain(self.memory, buffer_id)
        if flags & DESC_F_INDIRECT:
            if flags & DESC_F_NEXT:
                raise VirtqueueError("an indirect descriptor with a next one")
            self._add_table(chain, gpa, length_bytes)
        else:
            chain.add(gpa, length_bytes, flags)
            while flags & DESC_F_NEXT:
                chain.slots += 1
                if chain.slots > state.size:
                    raise VirtqueueError("a chain longer than its ring")
                index = (index + 1) % state.size
                gpa, length_bytes, chain.id, flags = self._descriptor(index)
                if flags & DESC_F_INDIRECT:
                    raise VirtqueueError("an indirect descriptor inside a chain")
                chain.add(gpa, length_bytes, flags)
        state.next_avail, state.avail_wrap = self._after(
            state.next_avail, state.avail_wrap, chain.slots
        )
        return chain

    def _after(self, index: int, wrap: bool, slots: int) -> tuple[int, bool]:
        index += slots
        return (index - self.state.size, not wrap) if index >= self.state.size else (index, wrap)

    def _add_table(self, chain: Chain, gpa: int, length_bytes: int) -> None:
        table = self._indirect_table(gpa, length_bytes)
        for gpa, length_bytes, _, flags in _DESC.iter_unpack(table):
            if flags & DESC_F_INDIRECT:
                raise VirtqueueError("an indirect descriptor in an indirect table")
            chain.add(gpa, length_bytes, flags)

    def _push(self, chain_id: int, slots: int, written_bytes: int) -> None:
        state = self.state
        flags = DESC_F_WRITE if written_bytes else 0
        if state.used_wrap:
            flags |= DESC_F_AVAIL | DESC_F_USED
        gpa = state.desc + DESC_BYTES * state.next_used + 8
        self.memory.write(gpa, _USED.pack(written_bytes, chain_id, flags))
        state.next_used, state.used_wrap = self._after(state.next_used, state.used_wrap, slots)

    def _flush(self) -> None:
        """Nothing is put off: a descriptor is where it is used."""

    def _look_again(self) -> None:
        """Nothing is read ahead."""

    def _wants_interrupt(self) -> bool:
        state = self.state
        old, old_wrap = state.signalled, state.signalled_wrap
        new = state.next_used
        state.signalled, state.signalled_wrap = new, state.used_wrap
        if (old, old_wrap) == (new, state.used_wrap):
            return False
        event, flags = _EVENT.unpack(self.memory.read(state.driver, 4))
        if flags != EVENT_DESC or not self.event_idx:
            return bool(flags != EVENT_DISABLE)
        at = event & 0x7FFF
        if bool(event >> 15) != state.used_wrap:
            at -= state.size
        if old_wrap != state.used_wrap:
            old -= state.size
        due: bool = (new - at - 1) & 0xFFFF < (new - old) & 0xFFFF
        return due

    def _ask(self, wanted: bool) -> None:
        state = self.state
        if not wanted:
            event = (0, EVENT_DISABLE)
        elif self.event_idx:
            event = (state.next_avail | state.avail_wrap << 15, EVENT_DESC)
        else:
            event = (0, EVENT_ENABLE)
        self.memory.write(state.device, _EVENT.pack(*event))
