"""Registers of the 82540EM as memory, with the names of its manual.

PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (order number 317453),
chapter 13: the registers that it gives to the 82540EM. Registers that only others of the family
have (RXCW, FLA) are reserved; SWSM alone is from the manual of later ones (see there).
Deliberately not modelled: the packet buffer memory at 0x10000
(PBM), which reads as 0, and the alias addresses of the 82542.
"""

from __future__ import annotations

from workbench.core.regs import RC, RESERVED, RO, W1C, WO, Field, Reg, array
from workbench.hw.e1000.statistics import STATISTICS

__all__ = ["CAUSES", "REGISTERS"]

# General, 13.4.1 to 13.4.16

CTRL = Reg(
    "CTRL", 0x0000, 4, 0x0000_0201,
    fields=(
        Field("FD", 0),
        Field("LRST", 3),
        Field("ASDE", 5),
        Field("SLU", 6),
        Field("ILOS", 7),
        Field("SPEED", 8, 2, values={0: "10", 1: "100", 2: "1000"}),
        Field("FRCSPD", 11),
        Field("FRCDPLX", 12),
        Field("SDP0_DATA", 18),
        Field("SDP1_DATA", 19),
        Field("ADVD3WUC", 20),
        Field("EN_PHY_PWR_MGMT", 21),
        Field("SDP0_IODIR", 22),
        Field("SDP1_IODIR", 23),
        Field("RST", 26),
        Field("RFCE", 27),
        Field("TFCE", 28),
        Field("VME", 30),
        Field("PHY_RST", 31),
    ),
    ref="317453 13.4.1",
)  # fmt: skip
STATUS = Reg(
    "STATUS", 0x0008, 4, 0x0000_0280, RO,
    fields=(
        Field("FD", 0),
        Field("LU", 1),
        Field("FUNCTION_ID", 2, 2),
        Field("TXOFF", 4),
        Field("TBIMODE", 5),
        Field("SPEED", 6, 2, values={0: "10", 1: "100", 2: "1000"}),
        Field("ASDV", 8, 2),
        Field("PCI66", 11),
        Field("BUS64", 12),
        Field("PCIX_MODE", 13),
        Field("PCIXSPD", 14, 2),
    ),
    ref="317453 13.4.2",
)  # fmt: skip
EECD = Reg(
    "EECD", 0x0010, 4, 0x0000_0110,
    fields=(
        Field("SK", 0),
        Field("CS", 1),
        Field("DI", 2),
        Field("DO", 3, access=RO),
        Field("FWE", 4, 2),
        Field("EE_REQ", 6),
        Field("EE_GNT", 7, access=RO),
        Field("EE_PRES", 8, access=RO),
        Field("EE_SIZE", 9, access=RO),
    ),
    ref="317453 13.4.3",
)  # fmt: skip
EERD = Reg(
    "EERD", 0x0014, 4,
    fields=(
        Field("START", 0),
        Field("DONE", 4, access=RO),
        Field("ADDR", 8, 8),
        Field("DATA", 16, 16, RO),
    ),
    ref="317453 13.4.4",
)  # fmt: skip
FLA = Reg("FLA", 0x001C, 4, access=RESERVED, ref="317453 13.4.5")
CTRL_EXT = Reg(
    "CTRL_EXT", 0x0018, 4,
    fields=(
        Field("GPI_EN", 0, 4),
        Field("SDP6_DATA", 6),
        Field("SDP7_DATA", 7),
        Field("SDP6_IODIR", 10),
        Field("SDP7_IODIR", 11),
        Field("ASDCHK", 12),
        Field("EE_RST", 13),
        Field("SPD_BYPS", 15),
        Field("RO_DIS", 17),
        Field("LINK_MODE", 22, 2),
    ),
    ref="317453 13.4.6",
)  # fmt: skip
MDIC = Reg(
    "MDIC", 0x0020, 4, 1 << 28,
    fields=(
        Field("DATA", 0, 16),
        Field("REGADD", 16, 5),
        Field("PHYADD", 21, 5),
        Field("OP", 26, 2, values={1: "write", 2: "read"}),
        Field("R", 28),
        Field("I", 29),
        Field("E", 30),
    ),
    ref="317453 13.4.7",
)  # fmt: skip
FCAL = Reg("FCAL", 0x0028, 4, ref="317453 13.4.8")
FCAH = Reg("FCAH", 0x002C, 4, fields=(Field("FCAH", 0, 16),), ref="317453 13.4.9")
FCT = Reg("FCT", 0x0030, 4, fields=(Field("TYPE", 0, 16),), ref="317453 13.4.10")
VET = Reg("VET", 0x0038, 4, 0x8100, fields=(Field("VET", 0, 16),), ref="317453 13.4.11")
FCTTV = Reg("FCTTV", 0x0170, 4, fields=(Field("TTV", 0, 16),), ref="317453 13.4.12")
# Of chips with a TBI; but Linux's self-test, which Intel wrote, has it keep its bits on this one.
TXCW = Reg(
    "TXCW", 0x0178, 4,
    fields=(Field("TXCONFIGWORD", 0, 16), Field("TXCONFIG", 30), Field("ANE", 31)),
    ref="317453 13.4.13",
)  # fmt: skip
RXCW = Reg("RXCW", 0x0180, 4, access=RESERVED, ref="317453 13.4.14")
_LED = (("MODE", 0, 4), ("IVRT", 6, 1), ("BLINK", 7, 1))
LEDCTL = Reg(
    "LEDCTL", 0x0E00, 4, 0x0706_8302,
    fields=tuple(
        Field(f"LED{n}_{name}", 8 * n + lsb, width) for n in range(4) for name, lsb, width in _LED
    ),
    ref="317453 13.4.15",
)  # fmt: skip
PBA = Reg(
    "PBA", 0x1000, 4, 0x0010_0030,
    fields=(Field("RXA", 0, 16), Field("TXA", 16, 16, RO)),
    ref="317453 13.4.16",
)  # fmt: skip

# Interrupts, 13.4.17 to 13.4.21

CAUSES = (
    Field("TXDW", 0),
    Field("TXQE", 1),
    Field("LSC", 2),
    Field("RXSEQ", 3),
    Field("RXDMT0", 4),
    Field("RSV5", 5),  # reserved, raised by ICS alone: Linux's self-test wants each up to bit 9
    Field("RXO", 6),
    Field("RXT0", 7),
    Field("RSV8", 8),
    Field("MDAC", 9),
    Field("RXCFG", 10),
    Field("PHYINT", 12),
    Field("GPI_SDP6", 13),
    Field("GPI_SDP7", 14),
    Field("TXD_LOW", 15),
    Field("SRPD", 16),
)
ICR = Reg("ICR", 0x00C0, 4, 0, RC, CAUSES, "317453 13.4.17")
ITR = Reg("ITR", 0x00C4, 4, fields=(Field("INTERVAL", 0, 16),), ref="317453 13.4.18")
ICS = Reg("ICS", 0x00C8, 4, 0, WO, CAUSES, "317453 13.4.19")
IMS = Reg("IMS", 0x00D0, 4, 0, fields=CAUSES, ref="317453 13.4.20")
IMC = Reg("IMC", 0x00D8, 4, 0, WO, CAUSES, "317453 13.4.21")

# Receive, 13.4.22 to 13.4.32, and 13.4.46, 13.4.47

_LEN = (Field("LEN", 7, 13),)
_BASE = (Field("BAL", 4, 28),)
_INDEX = (Field("INDEX", 0, 16),)
RCTL = Reg(
    "RCTL", 0x0100, 4,
    fields=(
        Field("EN", 1),
        Field("SBP", 2),
        Field("UPE", 3),
        Field("MPE", 4),
        Field("LPE", 5),
        Field("LBM", 6, 2),
        Field("RDMTS", 8, 2),
        Field("MO", 12, 2),
        Field("BAM", 15),
        Field("BSIZE", 16, 2),
        Field("VFE", 18),
        Field("CFIEN", 19),
        Field("CFI", 20),
        Field("DPF", 22),
        Field("PMCF", 23),
        Field("BSEX", 25),
        Field("SECRC", 26),
    ),
    ref="317453 13.4.22",
)  # fmt: skip
FCRTL = Reg(
    "FCRTL", 0x2160, 4, fields=(Field("RTL", 3, 13), Field("XONE", 31)), ref="317453 13.4.23"
)
FCRTH = Reg("FCRTH", 0x2168, 4, fields=(Field("RTH", 3, 13),), ref="317453 13.4.24")
RDBAL = Reg("RDBAL", 0x2800, 4, fields=_BASE, ref="317453 13.4.25")
RDBAH = Reg("RDBAH", 0x2804, 4, ref="317453 13.4.26")
RDLEN = Reg("RDLEN", 0x2808, 4, fields=_LEN, ref="317453 13.4.27")
RDH = Reg("RDH", 0x2810, 4, fields=_INDEX, ref="317453 13.4.28")
RDT = Reg("RDT", 0x2818, 4, fields=_INDEX, ref="317453 13.4.29")
RDTR = Reg(
    "RDTR", 0x2820, 4, fields=(Field("DELAY", 0, 16), Field("FPD", 31)), ref="317453 13.4.30"
)
RXDCTL = Reg(
    "RXDCTL", 0x2828, 4, 0x0101_0000,
    fields=(
        Field("PTHRESH", 0, 6),
        Field("HTHRESH", 8, 6),
        Field("WTHRESH", 16, 6),
        Field("GRAN", 24, values={0: "cache lines", 1: "descriptors"}),
    ),
    ref="317453 13.4.46",
)  # fmt: skip
RADV = Reg("RADV", 0x282C, 4, fields=(Field("DELAY", 0, 16),), ref="317453 13.4.31")
RSRPD = Reg("RSRPD", 0x2C00, 4, fields=(Field("SIZE", 0, 12),), ref="317453 13.4.32")
RXCSUM = Reg(
    "RXCSUM", 0x5000, 4,
    fields=(Field("PCSS", 0, 8), Field("IPOFLD", 8), Field("TUOFLD", 9), Field("IPV6OFL", 10)),
    ref="317453 13.4.47",
)  # fmt: skip

# Transmit, 13.4.33 to 13.4.45

TCTL = Reg(
    "TCTL", 0x0400, 4,
    fields=(
        Field("EN", 1),
        Field("PSP", 3),
        Field("CT", 4, 8),
        Field("COLD", 12, 10),
        Field("SWXOFF", 22),
        Field("RTLC", 24),
        Field("NRTU", 25),
    ),
    ref="317453 13.4.33",
)  # fmt: skip
TIPG = Reg(
    "TIPG", 0x0410, 4, 0x0060_2008,
    fields=(Field("IPGT", 0, 10), Field("IPGR1", 10, 10), Field("IPGR2", 20, 10)),
    ref="317453 13.4.34",
)  # fmt: skip
AIFS = Reg("AIFS", 0x0458, 4, fields=(Field("AIFS", 0, 16),), ref="317453 13.4.35")
TXDMAC = Reg("TXDMAC", 0x3000, 4, fields=(Field("DPP", 0),), ref="317453 13.4.42")
TDBAL = Reg("TDBAL", 0x3800, 4, fields=_BASE, ref="317453 13.4.36")
TDBAH = Reg("TDBAH", 0x3804, 4, ref="317453 13.4.37")
TDLEN = Reg("TDLEN", 0x3808, 4, fields=_LEN, ref="317453 13.4.38")
TDH = Reg("TDH", 0x3810, 4, fields=_INDEX, ref="317453 13.4.39")
TDT = Reg("TDT", 0x3818, 4, fields=_INDEX, ref="317453 13.4.40")
TIDV = Reg("TIDV", 0x3820, 4, fields=(Field("IDV", 0, 16), Field("FPD", 31)), ref="317453 13.4.41")
TXDCTL = Reg(
    "TXDCTL", 0x3828, 4,
    fields=(
        Field("PTHRESH", 0, 6),
        Field("HTHRESH", 8, 6),
        Field("WTHRESH", 16, 6),
        Field("GRAN", 24, values={0: "cache lines", 1: "descriptors"}),
        Field("LWTHRESH", 25, 7),
    ),
    ref="317453 13.4.43",
)  # fmt: skip
TADV = Reg("TADV", 0x382C, 4, fields=(Field("IDV", 0, 16),), ref="317453 13.4.44")
TSPMT = Reg(
    "TSPMT", 0x3830, 4, 0x0100_0400,
    fields=(Field("TSMT", 0, 16), Field("TSPBP", 16, 16)),
    ref="317453 13.4.45",
)  # fmt: skip

# Filters, 13.5

MTA = array("MTA", 0x5200, 4, 128, 4, ref="317453 13.5.1")
RAL = array("RAL", 0x5400, 4, 16, 8, ref="317453 13.5.2")
RAH = array(
    "RAH", 0x5404, 4, 16, 8,
    fields=(
        Field("RAH", 0, 16),
        Field("AS", 16, 2, values={0: "destination", 1: "source"}),
        Field("AV", 31),
    ),
    ref="317453 13.5.3",
)  # fmt: skip
VFTA = array("VFTA", 0x5600, 4, 128, 4, ref="317453 13.5.4")

# Wake-up and management, 13.6

_WAKE = (
    Field("LNKC", 0),
    Field("MAG", 1),
    Field("EX", 2),
    Field("MC", 3),
    Field("BC", 4),
    Field("ARP", 5),
    Field("IPV4", 6),
    Field("IPV6", 7),
    Field("FLX0", 16),
    Field("FLX1", 17),
    Field("FLX2", 18),
    Field("FLX3", 19),
)
WUC = Reg(
    "WUC", 0x5800, 4,
    fields=(
        Field("APME", 0),
        Field("PME_EN", 1),
        Field("PME_STATUS", 2, access=W1C),
        Field("APMPME", 3),
    ),
    ref="317453 13.6.1",
)  # fmt: skip
WUFC = Reg("WUFC", 0x5808, 4, fields=(*_WAKE, Field("IGNORE_TCO", 15)), ref="317453 13.6.2")
WUS = Reg("WUS", 0x5810, 4, 0, W1C, _WAKE, "317453 13.6.3")
MANC = Reg(
    "MANC", 0x5820, 4,
    fields=(
        Field("SMBUS_EN", 0),
        Field("ASF_EN", 1),
        Field("R_ON_FORCE", 2),
        Field("RMCP_EN", 8),
        Field("0298_EN", 9),
        Field("IPV4_EN", 10),
        Field("IPV6_EN", 11),
        Field("SNAP_EN", 12),
        Field("ARP_EN", 13),
        Field("NEIGHBOR_EN", 14),
        Field("ARP_RES_EN", 15),
        Field("TCO_RESET", 16),
        Field("RCV_TCO_EN", 17),
        Field("REPORT_STATUS", 18),
        Field("BLK_PHY_RST_ON_IDE", 19),
        Field("EN_MNG2HOST", 21),
    ),
    ref="317453 13.4.48",
)  # fmt: skip
IPAV = Reg("IPAV", 0x5838, 4, fields=(Field("V4", 0, 4), Field("V60", 16)), ref="317453 13.6.4")
IP4AT = array("IP4AT", 0x5840, 4, 4, 8, ref="317453 13.6.5")
IP6AT = array("IP6AT", 0x5880, 4, 4, 4, ref="317453 13.6.6")
WUPL = Reg("WUPL", 0x5900, 4, 0, RO, (Field("LEN", 0, 12),), "317453 13.6.7")
WUPM = array("WUPM", 0x5A00, 4, 32, 4, access=RO, ref="317453 13.6.8")
FFLT = array("FFLT", 0x5F00, 4, 4, 8, fields=(Field("LEN", 0, 11),), ref="317453 13.6.9")
FFMT = array("FFMT", 0x9000, 4, 128, 8, fields=(Field("MASK", 0, 4),), ref="317453 13.6.10")
FFVT = array("FFVT", 0x9800, 4, 128, 8, ref="317453 13.6.11")

# Software semaphore of the 82571 and later: the 82540EM's manual has nothing at its address, but
# U-Boot's driver takes it on every chip before it reads the EEPROM, so it holds what is written.

SWSM = Reg(
    "SWSM", 0x5B50, 4,
    fields=(Field("SMBI", 0), Field("SWESMBI", 1)),
    ref="PCIe GbE controllers OpenSDM (316080) 13.8.13",
)  # fmt: skip

# Diagnostics, 13.8

_FIFO = (Field("PTR", 0, 13),)
RDFH = Reg("RDFH", 0x2410, 4, fields=_FIFO, ref="317453 13.8.1")
RDFT = Reg("RDFT", 0x2418, 4, fields=_FIFO, ref="317453 13.8.2")
RDFHS = Reg("RDFHS", 0x2420, 4, fields=_FIFO, ref="317453 13.8.3")
RDFTS = Reg("RDFTS", 0x2428, 4, fields=_FIFO, ref="317453 13.8.4")
RDFPC = Reg("RDFPC", 0x2430, 4, 0, RO, (Field("COUNT", 0, 13),), "317453 13.8.5")
TDFH = Reg("TDFH", 0x3410, 4, fields=_FIFO, ref="317453 13.8.6")
TDFT = Reg("TDFT", 0x3418, 4, fields=_FIFO, ref="317453 13.8.7")
TDFHS = Reg("TDFHS", 0x3420, 4, fields=_FIFO, ref="317453 13.8.8")
TDFTS = Reg("TDFTS", 0x3428, 4, fields=_FIFO, ref="317453 13.8.9")
TDFPC = Reg("TDFPC", 0x3430, 4, 0, RO, (Field("COUNT", 0, 13),), "317453 13.8.10")

REGISTERS = (
    CTRL, STATUS, EECD, EERD, CTRL_EXT, FLA, MDIC, FCAL, FCAH, FCT, VET, FCTTV, TXCW, RXCW,
    LEDCTL, PBA,
    ICR, ITR, ICS, IMS, IMC,
    RCTL, FCRTL, FCRTH, RDBAL, RDBAH, RDLEN, RDH, RDT, RDTR, RXDCTL, RADV, RSRPD, RXCSUM,
    TCTL, TIPG, AIFS, TXDMAC, TDBAL, TDBAH, TDLEN, TDH, TDT, TIDV, TXDCTL, TADV, TSPMT,
    *MTA, *RAL, *RAH, *VFTA,
    WUC, WUFC, WUS, MANC, IPAV, *IP4AT, *IP6AT, WUPL, *WUPM, *FFLT, *FFMT, *FFVT, SWSM,
    RDFH, RDFT, RDFHS, RDFTS, RDFPC, TDFH, TDFT, TDFHS, TDFTS, TDFPC,
    *STATISTICS,
)  # fmt: skip
