"""State of the 82540EM's MAC."""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from workbench.core.state import sized
from workbench.hw.e1000 import registers as r
from workbench.hw.e1000.offload import Context
from workbench.hw.e1000.statistics import COUNT

__all__ = ["MAX_WAITING_FRAMES", "MIN_FRAME_BYTES", "MacState"]

MAX_WAITING_FRAMES: Final = 1024
MIN_FRAME_BYTES: Final = 60  # without FCS; shorter ones are padded
MAX_FRAME_BYTES: Final = 16384
MAX_GATHERED_BYTES: Final = 2 << 20  # the longest descriptor and a segment


@dataclass(slots=True)
class MacState:
    """Registers, then what else the MAC remembers. Times are guest time in ps."""

    ctrl: int = r.CTRL.reset
    eecd: int = r.EECD.reset
    eerd: int = 0
    ctrl_ext: int = 0
    mdic: int = r.MDIC.reset
    fcal: int = 0
    fcah: int = 0
    fct: int = 0
    vet: int = r.VET.reset
    fcttv: int = 0
    txcw: int = 0
    ledctl: int = r.LEDCTL.reset
    pba: int = r.PBA.reset
    icr: int = 0
    itr: int = 0
    ims: int = 0
    rctl: int = 0
    fcrtl: int = 0
    fcrth: int = 0
    rdbal: int = 0
    rdbah: int = 0
    rdlen: int = 0
    rdh: int = 0
    rdt: int = 0
    rdtr: int = 0
    rxdctl: int = r.RXDCTL.reset
    radv: int = 0
    rsrpd: int = 0
    rxcsum: int = 0
    tctl: int = 0
    tipg: int = r.TIPG.reset
    aifs: int = 0
    txdmac: int = 0
    tdbal: int = 0
    tdbah: int = 0
    tdlen: int = 0
    tdh: int = 0
    tdt: int = 0
    tidv: int = 0
    txdctl: int = 0
    tadv: int = 0
    tspmt: int = r.TSPMT.reset
    mta: list[int] = sized(128)
    ral: list[int] = sized(16)
    rah: list[int] = sized(16)
    vfta: list[int] = sized(128)
    wuc: int = 0
    wufc: int = 0
    wus: int = 0
    manc: int = 0
    ipav: int = 0
    ip4at: list[int] = sized(4)
    ip6at: list[int] = sized(4)
    fflt: list[int] = sized(4)
    ffmt: list[int] = sized(128)
    ffvt: list[int] = sized(128)
    swsm: int = 0
    rdfh: int = 0
    rdft: int = 0
    rdfhs: int = 0
    rdfts: int = 0
    tdfh: int = 0
    tdft: int = 0
    tdfhs: int = 0
    tdfts: int = 0
    stats: list[int] = sized(COUNT)

    ioaddr: int = 0
    link: bool = False  # STATUS.LU
    asserted: bool = False  # the interrupt is asserted
    throttle_ps: int = 0  # not before this time again (ITR)
    rx_fifo: list[bytes] = field(default_factory=list)  # frames that wait for descriptors
    xoff_sent: bool = False  # the other end was asked to pause, and not to go on
    tx_paused: bool = False  # by a PAUSE frame that was received
    tx_free_ps: int = 0  # the wire is busy until then
    tx_context: Context = field(default_factory=Context)  # for checksums
    tx_tso: Context = field(default_factory=Context)  # for segmentation
    tx_buffer: bytearray = field(default_factory=bytearray)  # data of the packet being gathered
    tx_open: bool = False  # a packet has begun
    tx_request: int = 0  # its number
    tx_head: int = 0  # index of its first descriptor
    tx_descriptors: int = 0  # with its data, so far
    tx_frames: int = 0  # of it that left
    tx_ended: bool = False  # its EOP was seen
    tx_segmented: bool = False  # it is cut into segments
    tx_segment: int = 0  # segments sent
    tx_sent_bytes: int = 0  # payload bytes sent in segments
    tx_options: int = 0  # POPTS of its first data descriptor
    tx_vlan: int = -1  # tag to insert, -1 for none

    def __post_init__(self) -> None:
        if len(self.rx_fifo) > MAX_WAITING_FRAMES or not all(
            MIN_FRAME_BYTES <= len(frame) <= MAX_FRAME_BYTES for frame in self.rx_fifo
        ):
            raise ValueError("expected frames that fit the packet buffer")
        if len(self.tx_buffer) > MAX_GATHERED_BYTES:
            raise ValueError("expected a packet of at most 2 MiB")
        counts = (self.tx_request, self.tx_head, self.tx_descriptors, self.tx_frames)
        if not all(0 <= count < 1 << 63 for count in counts):
            raise ValueError("expected counts of a packet")
        if not -1 <= self.tx_vlan < 1 << 16 or self.tx_segment < 0 or self.tx_sent_bytes < 0:
            raise ValueError("expected a packet that can be sent")
