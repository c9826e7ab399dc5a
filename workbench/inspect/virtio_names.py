"""Names of virtio devices, feature bits and status bits (Virtual I/O Device 1.2, 2.1, 5 and 6)."""

from __future__ import annotations

from typing import Final

from workbench.hw.virtio.spec import BLOCK, CONSOLE, ENTROPY, NET

__all__ = ["KINDS", "STATUS", "feature_names", "queue_name"]

KINDS: Final = {NET: "network", BLOCK: "block", CONSOLE: "console", ENTROPY: "entropy"}
STATUS: Final = (
    (1, "ACKNOWLEDGE"), (2, "DRIVER"), (8, "FEATURES_OK"), (4, "DRIVER_OK"),
    (64, "DEVICE_NEEDS_RESET"), (128, "FAILED"),
)  # fmt: skip
_COMMON: Final = {
    24: "VIRTIO_F_NOTIFY_ON_EMPTY", 27: "VIRTIO_F_ANY_LAYOUT", 28: "VIRTIO_F_INDIRECT_DESC",
    29: "VIRTIO_F_EVENT_IDX", 32: "VIRTIO_F_VERSION_1", 33: "VIRTIO_F_ACCESS_PLATFORM",
    34: "VIRTIO_F_RING_PACKED", 35: "VIRTIO_F_IN_ORDER", 36: "VIRTIO_F_ORDER_PLATFORM",
    37: "VIRTIO_F_SR_IOV", 38: "VIRTIO_F_NOTIFICATION_DATA", 39: "VIRTIO_F_NOTIF_CONFIG_DATA",
    40: "VIRTIO_F_RING_RESET",
}  # fmt: skip
_OWN: Final[dict[int, dict[int, str]]] = {
    NET: {
        n: f"VIRTIO_NET_F_{name}"
        for n, name in {
            0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC",
            7: "GUEST_TSO4", 8: "GUEST_TSO6", 9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4",
            12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF", 16: "STATUS",
            17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA",
            21: "GUEST_ANNOUNCE", 22: "MQ", 23: "CTRL_MAC_ADDR", 54: "GUEST_USO4",
            55: "GUEST_USO6", 56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS",
            61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
        }.items()
    },
    BLOCK: {
        n: f"VIRTIO_BLK_F_{name}"
        for n, name in {
            0: "BARRIER", 1: "SIZE_MAX", 2: "SEG_MAX", 4: "GEOMETRY", 5: "RO", 6: "BLK_SIZE",
            7: "SCSI", 9: "FLUSH", 10: "TOPOLOGY", 11: "CONFIG_WCE", 12: "MQ", 13: "DISCARD",
            14: "WRITE_ZEROES", 15: "LIFETIME", 16: "SECURE_ERASE", 17: "ZONED",
        }.items()
    },
    CONSOLE: {
        0: "VIRTIO_CONSOLE_F_SIZE", 1: "VIRTIO_CONSOLE_F_MULTIPORT",
        2: "VIRTIO_CONSOLE_F_EMERG_WRITE",
    },
}  # fmt: skip


def feature_names(kind: int, features: int) -> list[tuple[int, str]]:
    """(bit, name) of each feature in a mask."""
    own = _OWN.get(kind, {})
    return [(n, own.get(n) or _COMMON.get(n, "unknown")) for n in range(64) if features >> n & 1]


def queue_name(kind: int, index: int, count: int) -> str:
    """What a queue of a device is for (5.1.2, 5.2.2, 5.3.2)."""
    if kind == NET:
        if index == count - 1 and count % 2:
            return "controlq"
        return f"{'transmitq' if index % 2 else 'receiveq'}{index // 2 + 1}"
    if kind == BLOCK:
        return f"requestq{index}" if count > 1 else "requestq"
    if kind == CONSOLE:
        way = ("receiveq", "transmitq")[index % 2]
        port = f" of port {index // 2 - 1}" if index > 3 else ""
        return f"control {way}" if index in (2, 3) else way + port
    return "requestq" if kind == ENTROPY else f"queue {index}"
