"""Base class of virtio devices: status, features, queues, configuration; no transport.

A device is the register bank of its configuration space (`MAP`, chapter 5 of Virtual I/O Device
1.2) with a `VirtioState` that holds its queues too. It says what it offers (`device_features`),
serves its queues (`service`), and tells its transport of used buffers (`interrupt`). Transports
call `set_status`, `offered`, `accept`, `kick` and the bank's `read` and `write`.

A driver that breaks a rule leaves the device broken: it serves nothing, shows DEVICE_NEEDS_RESET
to modern drivers, and lives again after a reset (2.1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from workbench.core.regs import RegBank, RegMap
from workbench.core.requests import OK, Requests, RequestState
from workbench.core.spans import Spans
from workbench.core.state import StateError
from workbench.hw.virtio.packed import PackedQueue
from workbench.hw.virtio.queue import Chain, Memory, QueueState, Virtqueue, VirtqueueError
from workbench.hw.virtio.spec import (
    DRIVER_OK,
    F_ANY_LAYOUT,
    F_EVENT_IDX,
    F_IN_ORDER,
    F_INDIRECT_DESC,
    F_NOTIFICATION_DATA,
    F_RING_PACKED,
    F_RING_RESET,
    F_VERSION_1,
    FEATURES_OK,
    LEGACY_FEATURES,
    MOST_QUEUE_SIZE,
    NEEDS_RESET,
)
from workbench.hw.virtio.split import SplitQueue

__all__ = ["Transport", "VirtioDevice", "VirtioState"]


class Transport(Protocol):
    """What carries a device."""

    @property
    def memory(self) -> Memory:
        """Guest memory."""

    def queue_interrupt(self, index: int) -> None:
        """A queue has used buffers that its driver wants to hear of."""

    def config_interrupt(self) -> None:
        """The configuration has changed."""


class _Nowhere:
    """The transport of a device that is not plugged in."""

    allowed = False

    @property
    def memory(self) -> Memory:
        return self

    def contains(self, gpa: int, length_bytes: int) -> bool:
        return False

    def read(self, gpa: int, length_bytes: int) -> bytes:
        return b"\xff" * length_bytes

    def write(self, gpa: int, data: bytes) -> None:
        """Nothing."""

    def scatter(self, spans: Spans, data: bytes | memoryview) -> None:
        """Nothing."""

    def queue_interrupt(self, index: int) -> None:
        """Nothing."""

    def config_interrupt(self) -> None:
        """Nothing."""


@dataclass(slots=True)
class VirtioState:
    """What every device has; a device adds its own fields in a subclass."""

    status: int = 0
    driver_features: int = 0
    generation: int = 0
    broken: bool = False
    queues: list[QueueState] = field(default_factory=list)
    requests: RequestState = field(default_factory=RequestState)

    def __post_init__(self) -> None:
        if not 0 <= self.status <= 0xFF or not 0 <= self.generation <= 0xFF:
            raise ValueError(f"expected 8 bits, not {self.status!r} and {self.generation!r}")
        if not 0 <= self.driver_features < 1 << 64:
            raise ValueError(f"expected 64 feature bits, not {self.driver_features!r}")


S = TypeVar("S", bound=VirtioState)


class VirtioDevice(RegBank[S]):
    """One device. Subclasses set TYPE (5), CLASS_CODE, MAP, STATE and override the last part."""

    TYPE: ClassVar[int]
    CLASS_CODE: ClassVar[int] = 0x00FF00
    TRANSITIONAL_ID: ClassVar[int]
    """PCI device number of the transitional form (4.1.2.1)."""

    def __init__(
        self,
        name: str,
        queue_sizes: Sequence[int],
        *,
        packed: bool = False,
        in_order: bool = True,
        event_idx: bool = True,
        indirect: bool = True,
    ) -> None:
        """`queue_sizes` are what the device offers; the flags are features to offer."""
        for size in queue_sizes:
            if not 1 <= size <= MOST_QUEUE_SIZE or size & size - 1:
                raise ValueError(f"expected a power of two up to {MOST_QUEUE_SIZE}, not {size!r}")
        # Wires
        self.transport: Transport = _Nowhere()
        self.queue_sizes = tuple(queue_sizes)
        self.modern = True
        """Whether the transport has the modern interface; without it VERSION_1 is not offered."""
        # Book-keeping
        self.broken_because = ""
        self.queues: list[Virtqueue] = []
        self.requests = Requests(name)
        self._ring_features = F_ANY_LAYOUT | F_VERSION_1 | F_RING_RESET | F_NOTIFICATION_DATA
        for mask, wanted in (
            (F_RING_PACKED, packed),
            (F_IN_ORDER, in_order),
            (F_EVENT_IDX, event_idx),
            (F_INDIRECT_DESC, indirect),
        ):
            self._ring_features |= mask if wanted else 0
        # State
        state = self.STATE()
        self._init_state(state)
        super().__init__(name, state=state)

    # -- state -----------------------------------------------------------------------------------

    def _init_state(self, state: S) -> None:
        state.queues = [QueueState(size=size) for size in self.queue_sizes]
        state.requests = self.requests.state  # they are counted on
        self.init_state(state)

    def set_state(self, state: S) -> None:
        """Replace the state; the queues are made anew on it."""
        super().set_state(state)
        self.requests.state = state.requests
        self.bind()

    def _check_values(self, state: S) -> None:
        super()._check_values(state)
        if len(state.queues) != len(self.queue_sizes):
            raise StateError(
                f"{self.map.name}.queues: expected {len(self.queue_sizes)}, not {len(state.queues)}"
            )

    def reset(self) -> None:
        """Reset by power, bus or driver (2.1)."""
        self.requests.abort()
        state = self.STATE()
        self._init_state(state)
        self.broken_because = ""
        self.set_state(state)
        self.stopped()

    def bind(self) -> None:
        """Make the queues for the present state, features and transport."""
        state = self.state
        kind = PackedQueue if state.driver_features & F_RING_PACKED else SplitQueue
        memory, features = self.transport.memory, state.driver_features
        self.queues = [
            kind(i, size, queue, memory, features)
            for i, (size, queue) in enumerate(zip(self.queue_sizes, state.queues, strict=True))
        ]

    # -- for transports --------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Plug the device into its transport."""
        self.transport = transport
        self.bind()

    @property
    def offered(self) -> int:
        """Features that this device offers on this transport, as a mask."""
        features = self.device_features() | self._ring_features
        return features if self.modern else features & LEGACY_FEATURES

    def has(self, mask: int) -> bool:
        """Whether the driver has accepted a feature."""
        return bool(self.state.driver_features & mask)

    def accept(self, features: int) -> None:
        """The driver's choice so far; too late after FEATURES_OK."""
        if not self.state.status & (FEATURES_OK | DRIVER_OK):
            self.state.driver_features = features & (1 << 64) - 1
            self.bind()

    def set_status(self, value: int) -> None:
        """A write to the status register; 0 resets."""
        state = self.state
        if not value:
            self.reset()
            return
        old = state.status
        value = value & 0xFF & ~NEEDS_RESET | old & NEEDS_RESET
        if value & FEATURES_OK and not old & FEATURES_OK and not self._features_ok():
            value &= ~FEATURES_OK
        state.status = value
        if value & FEATURES_OK & ~old:
            self.bind()
        if value & DRIVER_OK & ~old:
            self.started()
            self.kick_all()

    def _features_ok(self) -> bool:
        features = self.state.driver_features
        if features & ~self.offered or not features & F_VERSION_1:
            return False
        return self.features_fit(features)

    def queue_ready(self, index: int, ready: bool) -> None:
        """The driver switches a queue on or off; on, the rings start empty."""
        queue = self.state.queues[index]
        if ready and not queue.ready:
            queue.next_avail = queue.next_used = queue.signalled = 0
            queue.avail_wrap = queue.used_wrap = queue.signalled_wrap = True
            queue.quiet = False
        queue.ready = ready
        self.bind()

    def queue_reset(self, index: int) -> None:
        """Back to what reset leaves, for one queue (2.6.1)."""
        self.state.queues[index] = QueueState(size=self.queue_sizes[index])
        self.queue_stopped(index)
        self.bind()

    def set_queue_part(self, index: int, part: int, value: int) -> None:
        """Set half of an address of a queue that is not ready: part 0 and 1 are the low and high
        half of the descriptor area, 2 and 3 the driver area, 4 and 5 the device area.
        """
        queue = self.state.queues[index]
        if queue.ready:
            return
        name = ("desc", "driver", "device")[part >> 1]
        shift = 32 * (part & 1)
        kept = getattr(queue, name) & ~(0xFFFF_FFFF << shift)
        setattr(queue, name, kept | (value & 0xFFFF_FFFF) << shift)

    def kick(self, index: int) -> None:
        """The driver notifies: buffers may be available in this queue."""
        state = self.state
        if not 0 <= index < len(self.queues) or state.broken:
            return
        if not state.status & DRIVER_OK and self.has(F_VERSION_1):
            return
        if not self.transport.memory.allowed or not self.queues[index].ready:
            return
        self.guard(index, self._serve)

    def _serve(self, index: int) -> None:
        self.queues[index].ensure()
        self.service(index)

    def kick_all(self) -> None:
        """Look into every queue: at DRIVER_OK, and when bus mastering comes back."""
        for index in range(len(self.queues)):
            self.kick(index)

    def _break(self, reason: str) -> None:
        state = self.state
        state.broken = True
        self.broken_because = reason
        self.requests.abort("broken")
        self.stopped()
        if self.has(F_VERSION_1):
            state.status |= NEEDS_RESET
            if state.status & DRIVER_OK:
                self.transport.config_interrupt()

    # -- for devices -----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether buffers may be used now."""
        return not self.state.broken and self.transport.memory.allowed

    def guard(self, index: int, work: Callable[[int], None]) -> None:
        """Do work on a queue; a driver that broke a rule leaves the device broken."""
        try:
            work(index)
        except VirtqueueError as error:
            self._break(f"queue {index}: {error}")

    def begin(
        self,
        index: int,
        chain: Chain,
        kind: str,
        *,
        address: int = 0,
        length: int = 0,
        write: bool = False,
        detail: str = "",
    ) -> int:
        """A buffer is a request from now on; gives its number."""
        return self.requests.begin(
            kind,
            queue=index,
            address=address,
            length=length,
            write=write,
            head=chain.id,
            segments=len(chain.readable) + len(chain.writable),
            detail=detail,
        )

    def finish(
        self, index: int, chain: Chain, written_bytes: int, request: int, status: str = OK
    ) -> None:
        """Give a buffer back, which ends its request."""
        self.queues[index].push(chain.id, chain.slots, written_bytes)
        self.requests.end(request, status, f"written {written_bytes}")

    def interrupt(self, index: int) -> None:
        """After pushes: an interrupt, if the driver wants one."""
        if self.queues[index].wants_interrupt():
            self.transport.queue_interrupt(index)

    def config_changed(self) -> None:
        """The device has changed its configuration (2.5)."""
        self.state.generation = self.state.generation + 1 & 0xFF
        if self.state.status & DRIVER_OK:
            self.transport.config_interrupt()

    # -- overridden ------------------------------------------------------------------------------

    def device_features(self) -> int:
        """The features of this kind of device that it offers."""
        return 0

    def features_fit(self, features: int) -> bool:
        """Whether accepted features fit each other (5.x.3.1)."""
        return True

    def init_state(self, state: S) -> None:
        """Fill a new state with what depends on the constructor's arguments."""

    def started(self) -> None:
        """DRIVER_OK was set."""

    def stopped(self) -> None:
        """The device was reset or broke: drop what is under way."""

    def queue_stopped(self, index: int) -> None:
        """One queue was reset: drop what is under way in it."""

    def service(self, index: int) -> None:
        """Serve a queue; may raise VirtqueueError. Must be bounded."""
        raise NotImplementedError


def regmap(name: str, regs: Sequence[Any], ref: str, length: int = 0) -> RegMap:
    """The map of a configuration space, as long as its last register unless told."""
    return RegMap(name, length or max((reg.end for reg in regs), default=0), regs, ref)
