"""A virtio device: status, features, and its queues with what is in them (Virtual I/O Device 1.2).

Rings lie in guest memory and are the guest's: every index is taken modulo the size of its ring,
every address is checked, every walk is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from workbench.hw.virtio.device import VirtioDevice
from workbench.hw.virtio.queue import QueueState
from workbench.hw.virtio.spec import F_EVENT_IDX, F_RING_PACKED, NO_VECTOR
from workbench.inspect import virtio_chain as chains
from workbench.inspect.banks import register
from workbench.inspect.guest import Ram, hexa
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.pci import header, msi_text
from workbench.inspect.subject import Accesses, Bytes, Row, of_register
from workbench.inspect.virtio_chain import DESC, Chain
from workbench.inspect.virtio_names import KINDS, STATUS, feature_names, queue_name

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["devices", "virtio"]

_MOST_SIZE: Final = 1 << 15
_RECENT: Final = 8
_DESC_FLAGS: Final = ((1, "NEXT"), (2, "WRITE"), (4, "INDIRECT"))
_PACKED_FLAGS: Final = (*_DESC_FLAGS, (1 << 7, "AVAIL"), (1 << 15, "USED"))
_SPLIT_PARTS: Final = ("virtq_desc", "virtq_avail", "")
_PACKED_PARTS: Final = ("pvirtq_desc", "", "")
"""What lies in the descriptor, driver and device area."""
_EVENT: Final = ("ENABLE", "DISABLE", "DESC", "3")


def devices(machine: Machine) -> dict[str, VirtioDevice[Any]]:
    """The virtio devices of a machine by the name of their function, in the order of slots."""
    found = {name: getattr(device, "virtio", None) for name, device in machine.devices.items()}
    return {name: part for name, part in found.items() if isinstance(part, VirtioDevice)}


def virtio(machine: Machine, name: str, rows: int) -> Page:
    """One device."""
    device = devices(machine)[name]
    function: Any = machine.devices[name]
    state, kind = device.state, device.TYPE
    ram = Ram(machine)
    features = feature_names(kind, device.offered | state.driver_features)
    tables = [
        pairs(
            "device",
            [
                Row(
                    ("status", f"{state.status:#04x} " + _flags(STATUS, state.status)),
                    of_register(name, "device_status", "Status"),
                ),
                ("broken", device.broken_because or ("yes" if state.broken else "no")),
                ("configuration generation", str(state.generation)),
                ("queues", str(len(state.queues))),
            ],
        ),
    ]  # fmt: skip
    for n, queue in enumerate(state.queues):
        tables += _Queue(device, function, name, n, queue, ram, rows).tables()
    tables.append(
        table(
            "features",
            ("bit", "name", "offered", "accepted"),
            (
                (
                    str(n), text, "yes" if device.offered >> n & 1 else "no",
                    "yes" if state.driver_features >> n & 1 else "",
                )
                for n, text in features
            ),
        )
    )  # fmt: skip
    config = (register(reg, device.read(reg.offset, reg.size), name) for reg in device.map.regs)
    tables.append(table("configuration", ("register", "value", "fields"), config))
    if hasattr(function, "dma"):
        tables.append(header(function))
    title = f"{name}: virtio {KINDS.get(kind, f'device {kind}')}"
    return Page(name, title, tuple(t for t in tables if t.rows))


def _flags(names: tuple[tuple[int, str], ...], value: int) -> str:
    known = 0
    for mask, _ in names:
        known |= mask
    words = [name for mask, name in names if value & mask]
    return " ".join(words + ([f"+{value & ~known:#x}"] if value & ~known else [])) or "-"


class _Queue:
    """One queue on its way to becoming tables."""

    def __init__(
        self,
        device: VirtioDevice[Any],
        function: Any,
        device_name: str,
        index: int,
        queue: QueueState,
        ram: Ram,
        rows: int,
    ) -> None:
        self.device = device_name
        self.features = device.state.driver_features
        self.packed = bool(self.features & F_RING_PACKED)
        self.kind = device.TYPE
        self.index = index
        self.q = queue
        self.ram = ram
        self.rows = rows
        self.size = min(queue.size, _MOST_SIZE)
        self.name = queue_name(self.kind, index, len(device.state.queues))
        self.title = f"queue {index} ({self.name})"
        self.under_way = [
            done for done in getattr(device.state, "under_way", ()) if done.queue == index
        ]
        common = getattr(getattr(function, "state", None), "common", None)
        vectors = getattr(common, "queue_vectors", None) or []
        self.vector = vectors[index] if index < len(vectors) else None
        self.msix = getattr(function, "msix", None)

    def tables(self) -> list[Table]:
        if not self.q.ready or not self.size:
            return [pairs(self.title, [("ready", "no"), ("size", str(self.q.size))])]
        return self._packed() if self.packed else self._split()

    def _common(self) -> Iterator[tuple[str, str] | Row]:
        q = self.q
        yield "size", f"{q.size}, ready"
        if self.vector is not None and self.vector != NO_VECTOR:
            text = ""
            if self.msix is not None and self.msix.enabled and self.vector < self.msix.vectors:
                s = self.msix.state
                text = ": " + msi_text(s.msg_addr[self.vector], s.msg_data[self.vector])
            vector = of_register(self.device, "queue_msix_vector", f"MSG_DATA{self.vector}")
            yield Row(("MSI-X entry", f"{self.vector}{text}"), vector)
        desc, avail, used = _PACKED_PARTS if self.packed else _SPLIT_PARTS
        yield Row(("descriptors", f"{q.desc:#x}"), Bytes(q.desc, DESC.size, desc))
        yield Row(("driver area", f"{q.driver:#x}"), Bytes(q.driver, 4, avail))
        yield Row(("device area", f"{q.device:#x}"), Bytes(q.device, 4, used))
        if self.under_way:
            yield "executed, not reported yet", ", ".join(str(c.id) for c in self.under_way[:16])

    def _chains(self, found: list[tuple[str, Chain]], truncated: bool) -> list[Table]:
        """Chains with what they ask for, and the descriptors that they are made of."""
        requests = (
            Row(
                (
                    str(chain.head), where, str(len(chain.descs)),
                    chains.request_text(chain, self.ram, self.kind, self.name, self.features),
                ),
                self._desc(chain.head),
            )
            for where, chain in found
        )  # fmt: skip
        parts = (
            Row(
                (
                    str(chain.head), desc.place, hexa(desc.gpa), f"{desc.length:,}",
                    _flags(_DESC_FLAGS, desc.flags & 7) + ("" if desc.in_ram else " outside RAM"),
                ),
                Bytes(desc.at, DESC.size, self.element),
            )
            for _, chain in found
            for desc in chain.descs
        )  # fmt: skip
        note = "there are more" if truncated else ""
        return [
            table(
                f"{self.title}: chains", ("head", "where", "descriptors", "request"), requests,
                self.rows, note=note,
            ),
            table(
                f"{self.title}: descriptors of these chains",
                ("head", "descriptor", "address", "bytes", "flags"),
                parts, self.rows, keys=2,
            ),
        ]  # fmt: skip

    @property
    def element(self) -> str:
        """What its descriptors are called."""
        return (_PACKED_PARTS if self.packed else _SPLIT_PARTS)[0]

    def _desc(self, index: int) -> Bytes | None:
        """Where a descriptor of its table lies, if it is in it."""
        if index >= self.size:
            return None
        return Bytes(self.q.desc + DESC.size * index, DESC.size, self.element)

    def _notified(self) -> Accesses:
        """Notifications of this queue, over PCI, the legacy interface, and MMIO."""
        return of_register(self.device, f"queue_notify{self.index}", "queue_notify", "QueueNotify")

    # -- split (2.7) -----------------------------------------------------------------------------

    def _split(self) -> list[Table]:
        q, ram, size = self.q, self.ram, self.size
        idx, used = ram.number(q.driver + 2, 2), ram.number(q.device + 2, 2)
        available = 0 if idx is None else idx - q.next_avail & 0xFFFF
        outstanding = q.next_avail - q.next_used & 0xFFFF
        wrong = f", more than the {size} there can be" if available > size else ""
        items = [
            *self._common(),
            Row(
                ("available ring", f"idx {_number(idx)}, flags {hexa(ram.number(q.driver, 2))}"),
                Bytes(q.driver + 2, 2, "virtq_avail"),
            ),
            Row(
                ("used ring", f"idx {_number(used)}, flags {hexa(ram.number(q.device, 2))}"),
                Bytes(q.device + 2, 2),
            ),
            Row(
                ("device takes next", f"{q.next_avail} (slot {q.next_avail % size})"),
                self._notified(),
            ),
            ("device returns next", f"{q.next_used} (slot {q.next_used % size})"),
            ("available, not taken", f"{available}{wrong}"),
            ("outstanding in the device", str(outstanding)),
        ]
        if self.features & F_EVENT_IDX:
            for name, at in (
                ("used_event (interrupt after)", q.driver + 4 + 2 * size),
                ("avail_event (notify after)", q.device + 4 + 8 * size),
            ):
                items.append(Row((name, _number(ram.number(at, 2))), Bytes(at, 2)))
        available, outstanding = min(available, size), min(outstanding, size)
        places = [("outstanding", q.next_avail - n) for n in range(outstanding, 0, -1)]
        places += [("available", q.next_avail + n) for n in range(available)]
        found = []
        for where, place in places[: self.rows]:
            head = ram.number(q.driver + 4 + 2 * (place % size), 2)
            if head is not None:
                chain = chains.follow_split(ram, q.desc, size, head)
                found.append((f"{where}, slot {place % size}", chain))
        return [
            pairs(self.title, items),
            *self._chains(found, len(places) > self.rows),
            table(
                f"{self.title}: last used", ("slot", "id", "bytes written"), self._last_used(used)
            ),
            table(
                f"{self.title}: descriptor table",
                ("descriptor", "address", "bytes", "flags", "next"),
                self._descriptors(), self.rows,
            ),
        ]  # fmt: skip

    def _last_used(self, used: int | None) -> Iterator[Row]:
        if used is None:
            return
        for n in range(1, min(_RECENT, self.size) + 1):
            slot = (used - n) % self.size
            at = self.q.device + 4 + 8 * slot
            raw = self.ram.read(at, 8)
            if raw is not None and used - n >= 0:
                number, length = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
                yield Row((str(slot), str(number), f"{length:,}"), Bytes(at, 8, "virtq_used"))

    def _descriptors(self) -> Iterator[Row]:
        for n in range(self.size):
            raw = self.ram.read(self.q.desc + 16 * n, 16)
            if raw is None:
                yield Row((str(n), "?", "?", "outside RAM", ""))
                return
            gpa, length, flags, after = DESC.unpack(raw)
            if gpa or length:
                shown = str(after) if flags & chains.NEXT else ""
                cells = str(n), hexa(gpa), f"{length:,}", _flags(_DESC_FLAGS, flags), shown
                yield Row(cells, self._desc(n))

    # -- packed (2.8) ----------------------------------------------------------------------------

    def _packed(self) -> list[Table]:
        q, ram, size = self.q, self.ram, self.size
        items = [
            *self._common(),
            Row(
                ("device takes next", f"slot {q.next_avail}, wrap counter {int(q.avail_wrap)}"),
                self._notified(),
            ),
            ("device returns next", f"slot {q.next_used}, wrap counter {int(q.used_wrap)}"),
            Row(("driver event suppression", self._event(q.driver)), Bytes(q.driver, 4)),
            Row(("device event suppression", self._event(q.device)), Bytes(q.device, 4)),
        ]
        found: list[tuple[str, Chain]] = []
        slot, wrap = q.next_avail % size, q.avail_wrap
        steps = 0
        while steps < size and len(found) < self.rows:
            flags = ram.number(q.desc + 16 * slot + 14, 2)
            if flags is None or bool(flags & 0x80) != wrap or bool(flags & 0x8000) == wrap:
                break
            chain = chains.follow_packed(ram, q.desc, size, slot)
            found.append((f"available, slot {slot}", chain))
            taken = 1 if flags & chains.INDIRECT else max(len(chain.descs), 1)
            steps += taken
            slot += taken
            if slot >= size:
                slot, wrap = slot - size, not wrap
        return [
            pairs(self.title, items),
            *self._chains(found, steps < size and len(found) >= self.rows),
            table(
                f"{self.title}: ring",
                ("slot", "address", "bytes", "id", "flags", "state"),
                self._slots(), self.rows,
            ),
        ]  # fmt: skip

    def _event(self, gpa: int) -> str:
        raw = self.ram.read(gpa, 4)
        if raw is None:
            return "outside RAM"
        event, flags = (int.from_bytes(raw[at : at + 2], "little") for at in (0, 2))
        return f"{_EVENT[flags & 3]}, slot {event & 0x7FFF}, wrap {event >> 15}"

    def _slots(self) -> Iterator[Row]:
        q = self.q
        for n in range(self.size):
            raw = self.ram.read(q.desc + 16 * n, 16)
            if raw is None:
                yield Row((str(n), "?", "?", "", "outside RAM", ""))
                return
            gpa, length, number, flags = DESC.unpack(raw)
            if not gpa and not flags:
                continue
            avail, used = bool(flags & 0x80), bool(flags & 0x8000)
            wrap = q.avail_wrap if n >= q.next_avail else not q.avail_wrap
            known = "used" if avail == used else "available" if avail == wrap else "taken"
            cells = (
                str(n), hexa(gpa), f"{length:,}", str(number), _flags(_PACKED_FLAGS, flags), known
            )  # fmt: skip
            yield Row(cells, self._desc(n))


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
