"""What a debugger waits for among requests: a matcher, without any machine.

An observer gives each `on_request` to `RequestWatch.matches`; a request is seen when it begins, and
again if an `update` tells more of it (the packet of a PACKET command), so that it can be named
before it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from workbench.core.requests import END

__all__ = ["RequestWatch"]

MOST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class RequestWatch:
    """Requests of a device, of a kind, in a range of addresses and lengths; all inclusive.

    `device` and `kind` may have `*` and `?`; the case of the kind does not matter. `address` is LBA
    or sector: a request counts if any of its blocks of 512 bytes is in the range.
    """

    device: str = "*"
    kind: str = "*"
    first_address: int = 0
    last_address: int = MOST
    least_length: int = 0
    most_length: int = MOST

    def matches(self, device: str, phase: str, kind: str, address: int, length: int) -> bool:
        """Whether a row of a request is one that is waited for."""
        return (
            phase != END
            and fnmatchcase(device, self.device)
            and fnmatchcase(kind.upper(), self.kind.upper())
            and self.least_length <= length <= self.most_length
            and address <= self.last_address
            and address + max(-(-length // 512), 1) > self.first_address
        )
