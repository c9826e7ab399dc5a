"""Entropy device (Virtual I/O Device 1.2, 5.4): bytes that follow from the seed of the machine.

The stream is BLAKE2b of a counter, keyed by the seed: equal seeds give equal bytes, which is what a
replay needs; nothing here is secret. A request gets at most 64 KiB.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState, regmap

__all__ = ["RngState", "VirtioRng"]

QUEUE_SIZE: Final = 64
MOST_BYTES: Final = 64 << 10
BLOCK_BYTES: Final = 64


@dataclass(slots=True)
class RngState(VirtioState):
    """The position in the stream."""

    blocks: int = 0


class VirtioRng(VirtioDevice[RngState]):
    """Entropy that every replay sees again."""

    TYPE = spec.ENTROPY
    TRANSITIONAL_ID = 0x1005
    CLASS_CODE = 0x00FF00
    MAP = regmap("virtio-rng", (), "VIRTIO 1.2 5.4.4", length=4)
    STATE = RngState

    def __init__(self, name: str, seed: int, *, packed: bool = False, **features: bool) -> None:
        """`seed` is that of the machine's configuration; `features` as in `VirtioDevice`."""
        self._key = hashlib.blake2b(f"{name}:{seed}".encode()).digest()
        super().__init__(name, (QUEUE_SIZE,), packed=packed, **features)

    def reset(self) -> None:
        """The stream goes on: a reset must not repeat bytes."""
        blocks = self.state.blocks
        super().reset()
        self.state.blocks = blocks

    def _bytes(self, count: int) -> bytes:
        blocks = -(-count // BLOCK_BYTES)
        first = self.state.blocks
        self.state.blocks += blocks
        return b"".join(
            hashlib.blake2b((n % (1 << 128)).to_bytes(16, "little"), key=self._key).digest()
            for n in range(first, first + blocks)
        )[:count]

    def service(self, index: int) -> None:
        """Fill every buffer."""
        queue = self.queues[index]
        for _ in range(queue.state.size):
            chain = queue.pop()
            if chain is None:
                break
            request = self.begin(index, chain, "rng", length=chain.writable_bytes)
            count = chain.write(self._bytes(min(chain.writable_bytes, MOST_BYTES)))
            self.finish(index, chain, count, request)
        self.interrupt(index)
