"""The symbols of a distribution's kernel and of its modules, with KASLR."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import guests
import workbench as api
from tests.cli.conftest import command, environment
from workbench.trace import stacks, symbols
from workbench.trace.reader import Trace

pytestmark = [pytest.mark.guest, pytest.mark.slow]
Guests = Callable[[str], guests.Guest]
LINKED = 0xFFFF_FFFF_8100_0000


@pytest.fixture
def boot(tmp_path: Path, guest: Guests, monkeypatch: pytest.MonkeyPatch) -> Trace:
    cloud = guest("cloud")
    subprocess.run(
        [
            *command(False), "record", "--kernel", str(cloud.kernel),
            "--initrd", str(cloud.images["boot"]), "--append", "console=ttyS0", "-m", "256",
            "--serial", "none", "-o", "boot.wbt", "--timeout", "200",
        ],
        cwd=tmp_path, env=environment(), check=True, timeout=240,
    )  # fmt: skip
    forget_tables(monkeypatch)
    return api.open(tmp_path / "boot.wbt")


def forget_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with no table in the cache, and leave none there."""
    kept: dict[str, symbols.SymbolTable] = {}
    monkeypatch.setattr(symbols, "_load", kept.get)
    monkeypatch.setattr(symbols, "_keep", kept.__setitem__)


def functions(trace: Trace, table: symbols.SymbolTable, device: str) -> set[str]:
    rows = zip(trace.accesses["device"].to_pylist(), trace.accesses["pc"].to_pylist(), strict=True)
    return {table.function(pc) for name, pc in rows if name == device}


def test_kernel_symbols_come_from_guest_memory(boot: Trace, tmp_path: Path) -> None:
    with boot:
        table = symbols.of_trace(boot)
        assert len(table) > 30_000
        assert functions(boot, table, "com1") >= {"io_serial_in", "io_serial_out"}
        pcs = boot.accesses["pc"].unique().to_pylist()
        assert all("+0x" in table.text(pc) for pc in pcs)
        # The second time they come from the cache; a damaged one is made again.
        cache = tmp_path / "symbols.zst"
        assert symbols.of_trace(boot).pack() == table.pack()
        cache.write_bytes(b"damaged")
        assert symbols.of_trace(boot).pack() == table.pack()
        # A System.map has the addresses of the link, and KASLR moved the kernel.
        packed, count = table.pack(), len(table)
        addresses = struct.unpack_from(f"<{count}Q", packed, 8)
        names = packed[8 + 8 * count :].decode().split("\n")
        start = addresses[0]
        lines = [f"{LINKED:016x} T _text\n"]
        for address, name in zip(addresses, names, strict=True):
            lines.append(f"{address - start + LINKED:016x} T {name}\n")
        listing = tmp_path / "System.map"
        listing.write_text("".join(lines))
        moved = symbols.of_file(str(listing), boot)
        assert start != LINKED
        assert [moved.text(pc) for pc in pcs] == [table.text(pc) for pc in pcs]
        # Who printed: by the kernel's ORC tables, from the port's helper up to the stack's end.
        found = stacks.of_trace(boot, ("com1",))
        assert (found.has_orc, found.diverged) == (True, False)
        chains = [stacks.names(chain, table, offsets=False) for chain in found.chains]
        printed = [c for c in chains if {"serial8250_console_write", "io_serial_out"} <= {*c}]
        assert any({"console_unlock", "vprintk_emit"} & {*chain} for chain in printed)
        wrote = [chain for chain in chains if "tty_write" in " ".join(chain)]
        assert any(chain[-1].startswith("entry_SYSCALL_64") for chain in wrote)


def test_a_32_bit_kernel_and_its_modules(pae_trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_tables(monkeypatch)
    with api.open(pae_trace) as trace:
        table = symbols.of_trace(trace)
        assert functions(trace, table, "com1") >= {"io_serial_in", "io_serial_out"}
        # Debian's 32-bit kernel has no symbol of the list of modules: it is found by its shape.
        assert b"\nata_sff_exec_command [libata]\n" in table.pack()
