"""The real-time clock as QEMU's tests of it want it (decision 0036), where that is not as the data
sheet has it.
"""

from __future__ import annotations

from workbench.core.clock import PS_PER_SECOND
from workbench.hw.mc146818 import MC146818

__all__ = ["QtestRtc"]


class QtestRtc(MC146818):
    """An update takes no time, so UIP is up for the 244 us before it only; and a period that is
    changed begins with the last one, not at the chain's next edge.
    """

    UIP_PS = 8 * PS_PER_SECOND // 32768

    # Book-keeping (no testbed is saved)
    _tap = 0
    _tap_rate = 0

    def _tap_ps(self) -> int:
        return self._tap

    def _sync(self) -> None:
        rate, now = self._rate_hz(), self._clock.now_ps
        if rate != self._tap_rate:
            passed = now - self._tap
            if self._tap_rate:
                passed = passed * self._tap_rate // PS_PER_SECOND * PS_PER_SECOND // self._tap_rate
            self._tap += passed
            self._tap_rate = rate
        super()._sync()
