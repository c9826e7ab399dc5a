"""Why QEMU's 82540EM answers otherwise than ours: rules by what was noted.

`docs/e1000.md` says the same to users. A difference that no rule knows fails the test.
"""

from __future__ import annotations

import re
from typing import Any

_UNKNOWN = "FCAL|FCAH|FCT|FCTTV|FCRTL|FCRTH|RSRPD|RXDCTL|RXCSUM|TIPG|TIDV|TXDMAC|TSPMT|CTRL_EXT"
# (program and what it noted, why)
RULES: tuple[tuple[str, str], ...] = (
    (
        r"(reset values|link|software reset|writable bits): STATUS",
        "QEMU's link is there from the "
        "start and after each reset; ours is negotiated. STATUS has no bits 8, 9, 19, 31 by 13.4.2",
    ),
    (
        r"reset values: (CTRL|EECD|MDIC|LEDCTL|RXDCTL|TIPG|TSPMT|WUC|MANC)$",
        "values of chapter 13; WUC.APME from the EEPROM (5.6.11)",
    ),
    (rf"writable bits: ({_UNKNOWN}) ", "registers that QEMU does not have, they read as 0"),
    (
        r"writable bits: (VET|LEDCTL|RDBAL|TDBAL|TXDCTL|RAH15|WUFC|IPAV) ",
        "reserved bits are 0 here, QEMU keeps all",
    ),
    (r"writable bits: (WUS|WUPM0) ", "WUS is cleared by ones, WUPM is read only (13.6.3, 13.6.8)"),
    (r"writable bits: TDF[HT] ", "13 bits (13.8.6, 13.8.7); QEMU has 11"),
    (
        r"eeprom: (EERD|EECD word 0x3f)",
        "two adapters: part number, LEDs, checksum; both sum to BABA",
    ),
    (r"eeprom: EECD released", "EE_GNT goes with EE_REQ (5.3.1)"),
    (r"phy registers: (1|5|6|10|17|20)$", "the link is not there yet here"),
    (r"phy registers: \d+", "registers that QEMU's PHY does not have: an error there"),
    (r"phy registers: another PHY", "an error on both; QEMU keeps the last address"),
    (r"software reset: ", "CTRL.RST does nothing in QEMU 7.2 (13.4.1: all registers)"),
    (r".* checksum$", "QEMU has no packet checksum (3.2.3.3)"),
    (r".* CRC$", "QEMU leaves the FCS out of what it stores, though its length is counted"),
    (r"legacy descriptors: frame 4 data", "QEMU inserts no checksum for IC of legacy descriptors"),
    (
        r"legacy descriptors: (GOTCL|TOTL|PTC64)$",
        "octets are with FCS and padding, as on the wire (13.7.32); QEMU's are without",
    ),
    (
        r"(checksums|segmentation): \w+ \d (status|errors)$",
        "QEMU does not check received frames (RXCSUM), so they have IXSM",
    ),
    (r"address filters: (BPRC|MPRC)$", "QEMU counts a broadcast that MPE lets pass as multicast"),
    (r"address filters: TPR$", "all frames are counted, those filtered, too (13.7.47)"),
    (r"lengths and buffers: (1505 bytes|ROC)$", "1522 bytes are with FCS; QEMU counts without"),
    (
        r"receive interrupts: ICR (with few|as the)",
        "RXDMT0 is an event, when as few descriptors are left (3.2.7.1.3); QEMU repeats it",
    ),
    (r"receive interrupts: (RNBC|ICR of a small)", "QEMU has neither RNBC nor RSRPD"),
)


def unexplained(differences: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Those that no rule knows."""
    return [
        (key, mine, theirs)
        for key, mine, theirs in differences
        if not any(re.match(pattern, key) for pattern, _ in RULES)
    ]
