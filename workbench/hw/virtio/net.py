"""Network device (Virtual I/O Device 1.2, 5.1) on a `net.NetPort`.

Transmission takes no guest time: a frame leaves while the driver notifies. Checksums are completed
and large frames cut up here, so that the network sees what a wire would carry. Received frames wait
in a backlog, which is state, while the driver has no buffers; at most 256, more are lost. A large
frame from the network (a peer that does not segment) is handed on as one if the driver takes such
frames. Deliberately not modelled: RSS and hash reports, UDP fragmentation offload (UFO), standby.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from workbench.core.regs import RO, Field, Reg, array, on_read, on_write
from workbench.core.requests import OK as OK_STATUS
from workbench.core.state import sized
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState, regmap
from workbench.hw.virtio.offload import (
    ETH_IPV4,
    ETH_IPV6,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    IP_TCP,
    TCP_CWR,
    Upper,
    checksum_is_right,
    complete,
    network_layer,
    segments,
    upper_layer,
)
from workbench.hw.virtio.queue import Chain, Virtqueue, VirtqueueError
from workbench.net.port import Large

__all__ = ["FramePort", "NetState", "VirtioNet"]

QUEUE_SIZE: Final = 256
CTRL_SIZE: Final = 64
MOST_PAIRS: Final = 16
MOST_WAITING: Final = 256
MOST_FRAME_BYTES: Final = 65535 + 18
MOST_MACS: Final = 64
LEAST_FRAME_BYTES: Final = 14
WIRE_BYTES: Final = 1514
TAGGED_WIRE_BYTES: Final = 1518

F_CSUM, F_GUEST_CSUM, F_CTRL_GUEST_OFFLOADS, F_MAC = 1 << 0, 1 << 1, 1 << 2, 1 << 5
F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN = 1 << 7, 1 << 8, 1 << 9
F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN = 1 << 11, 1 << 12, 1 << 13
F_MRG_RXBUF, F_STATUS, F_CTRL_VQ, F_CTRL_RX = 1 << 15, 1 << 16, 1 << 17, 1 << 18
F_CTRL_VLAN, F_CTRL_RX_EXTRA, F_GUEST_ANNOUNCE = 1 << 19, 1 << 20, 1 << 21
F_MQ, F_CTRL_MAC_ADDR, F_HOST_USO, F_SPEED_DUPLEX = 1 << 22, 1 << 23, 1 << 56, 1 << 63

S_LINK_UP, S_ANNOUNCE = 1, 2
HDR_F_NEEDS_CSUM, HDR_F_DATA_VALID = 1, 2
_HDR = struct.Struct("<BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset

CTRL_RX, CTRL_MAC, CTRL_VLAN, CTRL_ANNOUNCE, CTRL_MQ, CTRL_GUEST_OFFLOADS = range(6)
RX_MODES: Final = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")
OK, ERR = 0, 1
CTRL_KINDS: Final = {
    CTRL_RX: "VIRTIO_NET_CTRL_RX",
    CTRL_MAC: "VIRTIO_NET_CTRL_MAC",
    CTRL_VLAN: "VIRTIO_NET_CTRL_VLAN",
    CTRL_ANNOUNCE: "VIRTIO_NET_CTRL_ANNOUNCE",
    CTRL_MQ: "VIRTIO_NET_CTRL_MQ",
    CTRL_GUEST_OFFLOADS: "VIRTIO_NET_CTRL_GUEST_OFFLOADS",
}

REF = "VIRTIO 1.2 5.1.4"
MAC = array("mac", 0, 1, 6, 1, ref=REF)
STATUS = Reg("status", 6, 2, access=RO, fields=(Field("LINK_UP", 0), Field("ANNOUNCE", 1)), ref=REF)
MAX_PAIRS = Reg("max_virtqueue_pairs", 8, 2, access=RO, ref=REF)
CONFIG = regmap(
    "virtio-net",
    (
        *MAC,
        STATUS,
        MAX_PAIRS,
        Reg("mtu", 10, 2, 1500, RO, ref=REF),
        Reg("speed", 12, 4, 10_000, RO, ref=REF),
        Reg("duplex", 16, 1, 1, RO, ref=REF),
    ),
    REF,
    length=20,
)


class FramePort(Protocol):
    """Where the cable goes (`net.port.NetPort`)."""

    def send_large(self, large: Large, /) -> None:
        """Segments of TCP go out."""

    def send(self, frame: bytes, /) -> None:
        """A frame without FCS."""

    def connect(self, receiver: Any, /) -> None:
        """Take where inputs go: `receiver(kind, data)`."""


@dataclass(slots=True)
class NetState(VirtioState):
    """Address, filters, and frames that wait for buffers."""

    mac: list[int] = sized(6)
    link: int = 1
    announce: int = 0
    promisc: int = 1
    allmulti: int = 0
    alluni: int = 0
    nomulti: int = 0
    nouni: int = 0
    nobcast: int = 0
    unicast: list[bytes] = field(default_factory=list)
    multicast: list[bytes] = field(default_factory=list)
    vlans: list[int] = field(default_factory=list)
    offloads: int = 0
    pairs: int = 1
    backlog: list[bytes] = field(default_factory=list)
    lost: int = 0


class VirtioNet(VirtioDevice[NetState]):
    """One interface. Queues: receive and transmit for each pair, then control."""

    TYPE = spec.NET
    TRANSITIONAL_ID = 0x1000
    CLASS_CODE = 0x020000
    MAP = CONFIG
    STATE = NetState

    def __init__(
        self,
        name: str,
        mac: bytes | str,
        port: FramePort,
        *,
        pairs: int = 1,
        packed: bool = False,
        without: int = 0,
        link: bool = True,
        **features: bool,
    ) -> None:
        """`mac` as six bytes or as 52:54:00:..; `without` is a mask of features not to offer;
        `link`: whether the cable is in at the start.
        """
        address = bytes.fromhex(mac.replace(":", "")) if isinstance(mac, str) else mac
        if len(address) != 6:
            raise ValueError(f"expected a MAC address of 6 bytes, not {mac!r}")
        if not 1 <= pairs <= MOST_PAIRS:
            raise ValueError(f"expected 1 to {MOST_PAIRS} queue pairs, not {pairs!r}")
        self.port = port
        self._mac = address
        self._pairs = pairs
        self._without = without
        self._link = link
        sizes = (QUEUE_SIZE,) * (2 * pairs) + (CTRL_SIZE,)
        super().__init__(name, sizes, packed=packed, **features)
        port.connect(self.receive_all)

    # -- configuration ---------------------------------------------------------------------------

    def init_state(self, state: NetState) -> None:
        state.mac = list(self._mac)
        state.link = int(self._link)

    def reset(self) -> None:
        """The cable stays as it is."""
        link = self.state.link
        super().reset()
        self.state.link = link

    def device_features(self) -> int:
        features = F_CSUM | F_GUEST_CSUM | F_CTRL_GUEST_OFFLOADS | F_MAC | F_MRG_RXBUF | F_STATUS
        features |= F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN
        features |= F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_HOST_USO
        features |= F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR
        features |= F_GUEST_ANNOUNCE | F_SPEED_DUPLEX
        return (features | (F_MQ if self._pairs > 1 else 0)) & ~self._without

    def features_fit(self, features: int) -> bool:
        """5.1.3.1: which features need which others."""
        needs = (
            (F_GUEST_TSO4, F_GUEST_CSUM),
            (F_GUEST_TSO6, F_GUEST_CSUM),
            (F_HOST_TSO4, F_CSUM),
            (F_HOST_TSO6, F_CSUM),
            (F_HOST_USO, F_CSUM),
            (F_GUEST_ECN, F_GUEST_TSO4 | F_GUEST_TSO6),
            (F_HOST_ECN, F_HOST_TSO4 | F_HOST_TSO6),
            (F_CTRL_RX, F_CTRL_VQ),
            (F_CTRL_VLAN, F_CTRL_VQ),
            (F_GUEST_ANNOUNCE, F_CTRL_VQ),
            (F_MQ, F_CTRL_VQ),
            (F_CTRL_MAC_ADDR, F_CTRL_VQ),
        )
        return all(not features & wanted or features & base for wanted, base in needs)

    @on_write(*MAC)
    def _write_mac(self, index: int, old: int, new: int) -> None:
        if self.has(spec.F_VERSION_1) or self.has(F_CTRL_MAC_ADDR):
            self.state.mac[index] = old  # writable for legacy drivers only (5.1.4)

    @on_read(STATUS)
    def _status(self) -> int:
        state = self.state
        return (S_LINK_UP if state.link else 0) | (S_ANNOUNCE if state.announce else 0)

    @on_read(MAX_PAIRS)
    def _max_pairs(self) -> int:
        return self._pairs

    # -- queues ----------------------------------------------------------------------------------

    @property
    def _control(self) -> int:
        """Index of the control queue (5.1.2)."""
        return 2 * self._pairs if self.has(F_MQ) else 2

    @property
    def _header_bytes(self) -> int:
        return 12 if self.state.driver_features & (spec.F_VERSION_1 | F_MRG_RXBUF) else 10

    def started(self) -> None:
        self._set_offloads(self.state.driver_features)

    def _set_offloads(self, offloads: int) -> None:
        self.state.offloads = offloads
        take_large = getattr(self.port, "take_large", None)
        if take_large is not None:
            take_large(bool(offloads & F_GUEST_TSO4) and self.has(F_MRG_RXBUF))

    def service(self, index: int) -> None:
        """A notification of any queue."""
        if index == self._control and self.has(F_CTRL_VQ):
            self._each(index, self._command)
        elif index & 1:
            self._each(index, self._transmit)
        elif self.state.backlog:
            self._drain()
        else:
            self.queues[index].quiet()

    def _each(self, index: int, work: Callable[[int, Chain], None]) -> None:
        queue = self.queues[index]
        for _ in range(queue.state.size):
            chain = queue.pop()
            if chain is None:
                break
            work(index, chain)
        self.interrupt(index)

    # -- transmission ----------------------------------------------------------------------------

    def _transmit(self, index: int, chain: Chain) -> None:
        size = self._header_bytes
        if chain.readable_bytes < size:
            raise VirtqueueError("a frame without its header")
        length = chain.readable_bytes - size
        request = self.begin(index, chain, "tx", length=length, write=True)
        frames: Large | list[bytes] = []
        if length <= MOST_FRAME_BYTES and self.state.link:
            frames = self._frames(chain.read(), size)
        if isinstance(frames, Large):
            self.port.send_large(frames)
        else:
            frames = [frame for frame in frames if frame]
            for frame in frames:
                self.port.send(frame)
        self.finish(index, chain, 0, request, OK_STATUS if frames else "dropped")

    def _frames(self, data: bytes, size: int) -> Large | list[bytes]:
        """What a wire would carry for one buffer of the driver (5.1.6.2)."""
        flags, gso_type, _, gso_size, start, offset = _HDR.unpack_from(data)
        frame = data[size:]
        needs_csum = flags & HDR_F_NEEDS_CSUM and self.has(F_CSUM)
        kind = gso_type & ~GSO_ECN
        allowed = {
            GSO_TCPV4: F_HOST_TSO4,
            GSO_TCPV6: F_HOST_TSO6,
            GSO_UDP_L4: F_HOST_USO,
        }.get(kind, 0)
        if kind and (not needs_csum or not self.has(allowed)):
            return []
        if kind:
            return segments(frame, gso_type, gso_size, start)
        if needs_csum:
            whole = complete(frame, start, offset)
            return [] if whole is None else [whole]
        return [frame]

    # -- reception -------------------------------------------------------------------------------

    def receive(self, kind: str, data: bytes) -> None:
        """An input: a frame, or one byte for the link."""
        self.receive_all(kind, (data,))

    def receive_all(self, kind: str, batch: Sequence[bytes]) -> None:
        """Inputs that come at once."""
        if kind == "link":
            for data in batch:
                self._plug(int(bool(data and data[0])))
        elif kind == "frame":
            self._arrived(batch)

    def _plug(self, link: int) -> None:
        if link != self.state.link:
            self.state.link = link
            self._link_changed()

    def _arrived(self, frames: Sequence[bytes]) -> None:
        state = self.state
        if not state.link or not state.status & spec.DRIVER_OK:
            return
        wanted = [frame for frame in frames if self._wanted(frame)]
        for at in range(0, len(wanted), MOST_WAITING):
            part = wanted[at : at + MOST_WAITING]
            room = MOST_WAITING - len(state.backlog)
            state.backlog += part[:room]
            state.lost += len(part[room:])
            if state.backlog and self.running:
                self.guard(0, lambda _: self._drain())

    def _link_changed(self) -> None:
        if self.state.link and self.has(F_GUEST_ANNOUNCE):
            self.state.announce = 1
        if self.has(F_STATUS):
            self.config_changed()

    def _wanted(self, frame: bytes) -> bool:
        """The filters of the control queue (5.1.6.5.1 to 5.1.6.5.3)."""
        state = self.state
        if not frame or len(frame) > MOST_FRAME_BYTES:
            return False
        if state.promisc or not self.has(F_CTRL_RX):
            return True
        if len(frame) < LEAST_FRAME_BYTES:
            return False  # no addresses to filter by
        tagged = frame[12:14] == b"\x81\x00"
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        if tagged and self.has(F_CTRL_VLAN) and vlan not in state.vlans:
            return False
        to = frame[:6]
        if to == b"\xff" * 6:
            return not state.nobcast
        if to[0] & 1:
            return not state.nomulti and (bool(state.allmulti) or to in state.multicast)
        if state.nouni:
            return False
        return bool(state.alluni) or to == bytes(state.mac) or to in state.unicast

    def _receive_queue(self, frame: bytes) -> int:
        pairs = min(max(self.state.pairs, 1), self._pairs)
        return 0 if pairs == 1 else 2 * (zlib.crc32(frame[26:38]) % pairs)

    def _drain(self) -> None:
        """Frames into buffers, as far as there are any."""
        state = self.state
        touched: dict[int, None] = {}
        several = len(state.backlog) > 1 or len(state.backlog[0]) > TAGGED_WIRE_BYTES
        try:
            while state.backlog:
                index = self._receive_queue(state.backlog[0])
                queue = self.queues[index]
                if several:
                    queue.gather()
                if not self._put(queue, state.backlog[0]):
                    break
                state.backlog.pop(0)
                touched[index] = None
        finally:
            for queue in self.queues:
                queue.flush()
        for index in touched:
            self.interrupt(index)

    def _put(self, queue: Virtqueue, frame: bytes) -> bool:
        """One frame into one buffer, or several (5.1.6.3); False while there are too few."""
        size = self._header_bytes
        mergeable = self.has(F_MRG_RXBUF)
        mark = queue.mark()
        chains: list[Chain] = []
        room = 0
        while room < size + len(frame):
            chain = queue.pop() if len(chains) < queue.state.size else None
            if chain is None:
                queue.rewind(mark)
                return False
            if not chain.writable_bytes or (not chains and chain.writable_bytes < size):
                raise VirtqueueError("a receive buffer without room")
            chains.append(chain)
            room += chain.writable_bytes
            if not mergeable and room < size + len(frame):
                queue.rewind(mark)
                self.state.lost += 1
                return True
        header, frame = self._receive_header(frame)
        if size == 12:
            header += len(chains).to_bytes(2, "little")
        data = header + frame
        at = 0
        for n, chain in enumerate(chains, 1):
            part = data[at : at + chain.writable_bytes]
            length = len(part) - (size if n == 1 else 0)
            detail = f"buffer {n} of {len(chains)}" if len(chains) > 1 else ""
            request = self.begin(queue.index, chain, "rx", length=length, detail=detail)
            at += chain.write(part)
            self.finish(queue.index, chain, len(part), request)
        return True

    def _receive_header(self, frame: bytes) -> tuple[bytes, bytes]:
        """The header, and the frame as the driver gets it (5.1.6.4.1).

        A checksum that is right is vouched for. A large TCP frame is to be seen as segments, for a
        driver that takes such; its checksum is left for the driver to complete.
        """
        offloads = self.state.offloads
        upper = upper_layer(frame) if offloads & F_GUEST_CSUM else None
        if upper is None or not checksum_is_right(frame, upper):
            return _HDR.pack(0, 0, 0, 0, 0, 0), frame
        kind = self._segment_kind(frame, upper)
        if not kind:
            return _HDR.pack(HDR_F_DATA_VALID, 0, 0, 0, 0, 0), frame
        start, field = upper.start, upper.field
        header = start + (frame[start + 12] >> 4) * 4
        size = max(WIRE_BYTES - header, 1)
        partial = upper.pseudo.to_bytes(2, "big")
        return (
            _HDR.pack(HDR_F_NEEDS_CSUM, kind, header, size, start, field - start),
            frame[:field] + partial + frame[field + 2 :],
        )

    def _segment_kind(self, frame: bytes, upper: Upper) -> int:
        """gso_type of a frame, 0 if it is not one to be segmented."""
        if len(frame) <= TAGGED_WIRE_BYTES or upper.protocol != IP_TCP:
            return 0
        if upper.end - upper.start < 20:
            return 0
        network, _ = network_layer(frame)
        wanted, kind = {
            ETH_IPV4: (F_GUEST_TSO4, GSO_TCPV4),
            ETH_IPV6: (F_GUEST_TSO6, GSO_TCPV6),
        }[network]
        congested = frame[upper.start + 13] & TCP_CWR
        if not self.state.offloads & wanted or (congested and not self.has(F_GUEST_ECN)):
            return 0
        return kind | (GSO_ECN if congested else 0)

    # -- control queue (5.1.6.5) -----------------------------------------------------------------

    def _command(self, index: int, chain: Chain) -> None:
        if chain.readable_bytes < 2 or not chain.writable_bytes:
            raise VirtqueueError("a command without header or acknowledgement")
        data = chain.read(0, 4096)
        kind = CTRL_KINDS.get(data[0], f"VIRTIO_NET_CTRL {data[0]}")
        length = chain.readable_bytes - 2
        detail = f"command {data[1]}"
        request = self.begin(index, chain, kind, length=length, write=True, detail=detail)
        done = self._control_command(data[0], data[1], data[2:])
        chain.write(bytes([OK if done else ERR]))
        self.finish(index, chain, 1, request, OK_STATUS if done else "VIRTIO_NET_ERR")

    def _control_command(self, group: int, command: int, data: bytes) -> bool:
        state = self.state
        if group == CTRL_RX and self.has(F_CTRL_RX):
            if command >= (6 if self.has(F_CTRL_RX_EXTRA) else 2) or len(data) != 1:
                return False
            setattr(state, RX_MODES[command], int(bool(data[0])))
            return True
        if group == CTRL_MAC:
            return self._control_mac(command, data)
        if group == CTRL_VLAN and self.has(F_CTRL_VLAN) and len(data) == 2:
            return self._control_vlan(command, int.from_bytes(data, "little"))
        if group == CTRL_ANNOUNCE and self.has(F_GUEST_ANNOUNCE) and command == 0:
            state.announce = 0
            return True
        if group == CTRL_MQ and self.has(F_MQ) and command == 0 and len(data) == 2:
            pairs = int.from_bytes(data, "little")
            if 1 <= pairs <= self._pairs:
                state.pairs = pairs
                return True
        if group == CTRL_GUEST_OFFLOADS and command == 0 and len(data) == 8:
            offloads = int.from_bytes(data, "little")
            if self.has(F_CTRL_GUEST_OFFLOADS) and not offloads & ~state.driver_features:
                self._set_offloads(offloads)
                return True
        return False

    def _control_mac(self, command: int, data: bytes) -> bool:
        state = self.state
        if command == 1 and self.has(F_CTRL_MAC_ADDR) and len(data) == 6:
            state.mac = list(data)
            return True
        if command != 0 or not self.has(F_CTRL_RX):
            return False
        tables = []
        for _ in range(2):
            count = int.from_bytes(data[:4], "little")
            if len(data) < 4 or len(data) - 4 < 6 * count:
                return False
            tables.append([data[4 + 6 * i : 10 + 6 * i] for i in range(count)])
            data = data[4 + 6 * count :]
        if data:
            return False
        # Too many addresses: let everything of the kind pass, as the driver may expect of a filter.
        state.unicast, state.multicast = tables
        if len(state.unicast) > MOST_MACS:
            state.unicast, state.alluni = [], 1
        if len(state.multicast) > MOST_MACS:
            state.multicast, state.allmulti = [], 1
        return True

    def _control_vlan(self, command: int, vlan: int) -> bool:
        vlans = self.state.vlans
        if vlan > 0xFFF or command > 1:
            return False
        if command == 0 and vlan not in vlans:
            vlans.append(vlan)
        elif command == 1 and vlan in vlans:
            vlans.remove(vlan)
        return True
