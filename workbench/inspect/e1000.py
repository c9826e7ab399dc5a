"""The 82540EM: link, interrupts, rings, filters, PHY, statistics (317453, chapters 3 and 13)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from workbench.hw.e1000 import registers as r
from workbench.hw.e1000.e1000 import E1000
from workbench.hw.e1000.phy import Phy
from workbench.hw.e1000.state import MacState
from workbench.hw.e1000.statistics import STATISTICS
from workbench.inspect.banks import bits, register, registers
from workbench.inspect.guest import Ram, hexa, time_text
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.pci import header
from workbench.inspect.subject import Bytes, Row, of_register

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["e1000"]

_RX: Final = struct.Struct("<QHHBBH")  # 3.2.3: address, length, _, status, errors, special
_TX: Final = struct.Struct("<QII")  # 3.3: address; the rest depends on the kind
_RX_STATUS: Final = ("DD", "EOP", "IXSM", "VP", "", "TCPCS", "IPCS", "PIF")
_RX_ERRORS: Final = ("CE", "SE", "SEQ", "", "CXE", "TCPE", "IPE", "RXE")
_TX_COMMAND: Final = ("EOP", "IFCS", "IC", "RS", "RSV", "DEXT", "VLE", "IDE")
_CONTEXT_COMMAND: Final = ("TCP", "IP", "TSE", "RS", "", "DEXT", "", "IDE")
_DATA_COMMAND: Final = ("EOP", "IFCS", "TSE", "RS", "RPS", "DEXT", "VLE", "IDE")
_TX_STATUS: Final = ("DD", "EC", "LC", "TU")
_BUFFERS: Final = (2048, 1024, 512, 256)
_REGADD: Final = next(field for field in r.MDIC.fields if field.name == "REGADD")
_BEFORE: Final = 16
"""Rows before the head in the part of a ring that is shown."""


def e1000(machine: Machine, name: str, rows: int) -> Page:
    """One controller."""
    card = machine.devices[name]
    assert isinstance(card, E1000)
    assert card.mac is not None
    state, mac = card.state.mac, card.mac
    status = mac.read(r.STATUS.offset, 4)
    ram = Ram(machine)
    control = (r.CTRL, r.CTRL_EXT, r.RCTL, r.TCTL, r.RXDCTL, r.TXDCTL, r.RXCSUM, r.PBA, r.EECD)
    rings = (r.RDBAL, r.RDBAH, r.RDLEN, r.RDH, r.RDT, r.TDBAL, r.TDBAH, r.TDLEN, r.TDH, r.TDT)
    timing = (r.ITR, r.RDTR, r.RADV, r.RSRPD, r.TIDV, r.TADV, r.TIPG, r.MDIC)
    tables = (
        _state(machine, card, state),
        _interrupts(state, name),
        table(
            "control", ("register", "value", "fields"),
            [
                register(r.STATUS, status, name),
                *(register(reg, mac.peek(reg), name) for reg in control),
            ],
        ),
        registers("ring registers", mac, name, rings),
        _ring(ram, state, "receive", rows),
        _ring(ram, state, "transmit", rows),
        registers("timing", mac, name, timing),
        _filters(state, name),
        _phy(mac.phy, name),
        table(
            "statistics that are not 0", ("register", "value"),
            (
                Row((reg.name, f"{value:,}"), of_register(name, reg.name))
                for reg in STATISTICS
                if (value := mac.peek(reg))
            ),
        ),
        header(card),
    )  # fmt: skip
    return Page(name, f"{name}: 82540EM", tuple(t for t in tables if t.rows))


def _state(machine: Machine, card: E1000, state: MacState) -> Table:
    now = machine.clock.now_ps
    waiting = sum(map(len, state.rx_fifo))
    items = [
        ("link", "up" if state.link else "down"),
        ("cable", "plugged in" if card.state.phy.cable else "unplugged"),
        ("frames waiting for descriptors", f"{len(state.rx_fifo)}, {waiting:,} bytes"),
        ("transmitter", "paused by the other end" if state.tx_paused else "not paused"),
        ("other end", "asked to pause" if state.xoff_sent else "not asked to pause"),
        ("wire busy for", time_text(max(state.tx_free_ps - now, 0))),
        ("packet being gathered", f"{len(state.tx_buffer):,} bytes" if state.tx_open else "none"),
    ]
    for timer in machine.clock.timers:
        if timer.name.startswith(f"{card.name}.") and timer.deadline_ps is not None:
            items.append((f"timer {timer.name}", f"in {time_text(timer.deadline_ps - now)}"))
    return pairs("state", items)


def _interrupts(state: MacState, name: str) -> Table:
    cleared = of_register(name, r.ICR.name)
    rows = (
        Row((cause.name, _yes(cause.get(state.icr)), _yes(cause.get(state.ims))), cleared)
        for cause in r.CAUSES
        if cause.get(state.icr | state.ims)
    )
    level = "asserted" if state.asserted else "not asserted"
    note = f"{level}, ICR {state.icr:#x}, IMS {state.ims:#x}"
    return table("interrupts", ("cause", "ICR", "IMS"), rows, note=note)


def _yes(value: int) -> str:
    return "1" if value else ""


def _ring(ram: Ram, state: MacState, which: str, limit: int) -> Table:
    x = which[0]
    low, high, length, head, tail = (
        getattr(state, name.format("rd" if x == "r" else "td"))
        for name in ("{}bal", "{}bah", "{}len", "{}h", "{}t")
    )
    base, count = high << 32 | low & ~15, length >> 4
    enabled = state.rctl & 2 if x == "r" else state.tctl & 2
    title = f"{which} ring"
    if not count:
        return pairs(title, [("length", "0: no ring")])
    note = f"{count} descriptors at {base:#x}, head {head}, tail {tail}"
    note += "" if enabled else ", disabled"
    if max(head, tail) >= count:
        note += "; head or tail is outside the ring"
    describe = _receive if x == "r" else _transmit
    columns = ("index", "", "owner", "address", "bytes", "state")
    rows = _descriptors(ram, state, base, count, head, tail, limit, describe, f"e1000_{x}x")
    if count > limit:
        note += f"; {limit} of them are shown, around the head"
    return table(title, columns, rows, limit, note=note)


def _descriptors(
    ram: Ram,
    state: MacState,
    base: int,
    count: int,
    head: int,
    tail: int,
    limit: int,
    describe: Callable[[bytes, MacState], tuple[str, str, str]],
    structure: str,
) -> Iterator[Row]:
    head, tail = head % count, tail % count
    first = head - _BEFORE if count > limit else 0
    for k in range(min(limit, count)):
        n = (first + k) % count
        ours = (n - head) % count < (tail - head) % count
        mark = " ".join(word for word, at in (("head", head), ("tail", tail)) if n == at)
        raw = ram.read(base + 16 * n, 16)
        if raw is None:
            yield Row((str(n), mark, "", "?", "?", "outside RAM"))
            return
        address, size, text = describe(raw, state)
        cells = str(n), mark, "device" if ours else "driver", address, size, text
        yield Row(cells, Bytes(base + 16 * n, 16, structure))


def _names(names: tuple[str, ...], value: int) -> str:
    return " ".join(name for n, name in enumerate(names) if value >> n & 1 and name)


def _receive(raw: bytes, state: MacState) -> tuple[str, str, str]:
    address, length, _, status, errors, special = _RX.unpack(raw)
    text = _names(_RX_STATUS, status)
    if errors:
        text += f" errors {_names(_RX_ERRORS, errors)}"
    if status & 8:
        text += f" VLAN {special & 0xFFF}"
    size = _BUFFERS[state.rctl >> 16 & 3] * (16 if state.rctl >> 25 & 1 else 1)
    return hexa(address), f"{length:,}" if status & 1 else f"room for {size:,}", text or "-"


def _transmit(raw: bytes, state: MacState) -> tuple[str, str, str]:
    address, low, high = _TX.unpack(raw)
    command, status = low >> 24, _names(_TX_STATUS, high & 0xF)
    if not command & 0x20:
        text = f"legacy: {_names(_TX_COMMAND, command)} {status}"
        return hexa(address), f"{low & 0xFFFF:,}", text.strip()
    if low >> 20 & 0xF == 0:
        text = f"context: {_names(_CONTEXT_COMMAND, command)} {status}"
        size = f"header {high >> 8 & 0xFF}, MSS {high >> 16}"
        return "-", f"{low & 0xFFFFF:,}", f"{text.strip()}; {size}"
    options = "".join(f" {name}" for n, name in ((8, "IXSM"), (9, "TXSM")) if high >> n & 1)
    text = f"data: {_names(_DATA_COMMAND, command)}{options} {status}"
    return hexa(address), f"{low & 0xFFFFF:,}", text.strip()


def _filters(state: MacState, device: str) -> Table:
    rows = []
    for n, (low, high) in enumerate(zip(state.ral, state.rah, strict=True)):
        if high >> 31:
            address = low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
            what = bits(r.RAH[n].fields[1:2], high & 0x30000)
            cells = f"RA{n}", f"{address.hex(':')} {what}"
            rows.append(Row(cells, of_register(device, r.RAH[n].name)))
    for name, words in (("MTA", state.mta), ("VFTA", state.vfta)):
        found = [32 * w + b for w, word in enumerate(words) for b in range(32) if word >> b & 1]
        more = f" and {len(found) - 16} more" if len(found) > 16 else ""
        cells = name, " ".join(f"{n:#x}" for n in found[:16]) + more or "empty"
        rows.append(Row(cells, of_register(device, f"{name}*")))
    return pairs("filters", rows)


def _phy(phy: Phy, device: str) -> Table:
    """The registers that a driver reads; none of these reads clears anything.

    A driver gets at them through MDIC.
    """
    regs = {reg.name: reg for reg in phy.map.regs}
    rows = []
    for name, reg in regs.items():
        if name in ("PSTATUS", "LPA", "GSTATUS", "PSSTAT"):
            value = phy.read(reg.offset, 2)
        elif hasattr(phy.state, reg.attr):
            value = phy.peek(reg)
        else:
            continue
        number = _REGADD.put(0, reg.offset // 2)
        asked = of_register(device, r.MDIC.name, more=f"value&{_REGADD.mask:#x}={number:#x}")
        rows.append(Row(register(reg, value, device).cells, asked))
    return table("PHY", ("register", "value", "fields"), rows)
