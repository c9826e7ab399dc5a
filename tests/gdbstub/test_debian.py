"""The real gdb on Debian's own kernel with its drivers: probe functions, rings, both directions."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guests
from guests.initramfs import run_option
from tests.cli.conftest import command, environment
from tests.gdbstub.test_gdb import Gdb
from workbench import dump
from workbench.gdbstub import debuginfo
from workbench.gdbstub.drgn_program import program
from workbench.gdbstub.memory import Memory
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.symbols import guest_symbols
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.reader import open_trace
from workbench.trace.timeline import Timeline

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]
COMMANDS = Path(debuginfo.__file__).with_name("gdb_commands.py")
SCRIPT = "dd if=/dev/vda of=/dev/null bs=4k count=32 2>/dev/null; dd if=/dev/sda of=/tmp/x count=8"


class Session:
    """A gdb, and the timeline behind it."""

    def __init__(self, gdb: Gdb, timeline: Timeline, symbols: dict[str, int]) -> None:
        self.gdb, self.timeline, self.symbols = gdb, timeline, symbols


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, guest: Callable[[str], guests.Guest]) -> Any:
    return _session(tmp_path_factory.mktemp("debian"), guest("cloud"))


@pytest.fixture(scope="module")
def debian(session: Iterator[Session]) -> Iterator[Session]:
    yield from session


def _session(folder: Path, found: guests.Guest) -> Iterator[Session]:
    for name in ("ide.raw", "virtio.raw"):
        with (folder / name).open("wb") as file:
            file.truncate(8 << 20)
    subprocess.run(
        [
            *command(False), "record", "--kernel", str(found.kernel),
            "--initrd", str(found.images["drivers"]), "--append",
            f"console=ttyS0 quiet {run_option(SCRIPT)}", "-m", "256", "--seed", "1",
            "--drive", "file=ide.raw,if=ide,format=raw",
            "--drive", "file=virtio.raw,if=virtio,format=raw",
            "--serial", "none", "-o", "boot.wbt", "--timeout", "200",
        ],
        cwd=folder, env=environment(), check=True, timeout=240,
    )  # fmt: skip
    with open_trace(folder / "boot.wbt") as trace:
        timeline = Timeline(trace)
        timeline.seek(timeline.end_icount)
        symbols = guest_symbols(timeline.machine)
        assert "6.1" in debuginfo.release(timeline.machine, symbols)
        with Server(Stub(ReplayTarget(timeline)), listen(f"unix:{folder / 'gdb'}")) as server:
            thread = threading.Thread(target=server.serve, daemon=True)
            thread.start()
            gdb = Gdb(server.address, seconds=120)
            gdb.do(f"source {COMMANDS}")
            assert "vmlinux, button" in gdb.do("wb-symbols")
            gdb.do("wb-seek start")
            yield Session(gdb, timeline, {name: address for address, _, name in symbols})
            gdb.close()
            server.stub.killed = True
            thread.join(10)


def test_a_driver_is_stopped_in_its_probe_function(debian: Session) -> None:
    gdb = debian.gdb
    gdb.do("hbreak virtblk_probe")
    assert "virtblk_probe" in gdb.do("continue")
    assert gdb.value("$pc") == debian.symbols["virtblk_probe"]
    begun = gdb.icount()
    gdb.do("stepi 3")
    assert gdb.icount() == begun + 3
    gdb.do("reverse-stepi 3")
    assert gdb.icount() == begun
    # The kernel has no frame pointers: the chain comes from its ORC tables.
    chain = re.findall(r"^#\d+ .* in (\w+)", gdb.do("bt"), re.MULTILINE)
    assert chain[:3] == ["virtblk_probe", "virtio_dev_probe", "really_probe"]
    assert {"bus_add_driver", "do_init_module", "entry_SYSCALL_64_after_hwframe"} <= {*chain}
    assert "virtio_dev_probe" in gdb.do("finish")
    assert gdb.value("$rax") == 0
    # Writing opens another run, which is dropped.
    after = gdb.icount()
    gdb.do("set $rax = -19")
    gdb.do("stepi 5")
    assert "a diversion since" in gdb.do("monitor when")
    gdb.do("wb-drop")
    assert gdb.icount() == after
    assert gdb.value("$rax") == 0
    gdb.do("reverse-continue")
    assert gdb.icount() == begun
    gdb.do("delete")


def test_functions_are_left_and_passed_over_from_the_middle(debian: Session) -> None:
    """`finish`, `next`, `up` and their reverse forms, without debug information."""
    gdb = debian.gdb
    gdb.do("hbreak virtqueue_add_sgs")
    gdb.do("continue")
    begun = gdb.icount()
    gdb.do("stepi 12")
    assert "virtblk_add_req" in gdb.do("finish")
    returned = gdb.icount()
    assert returned > begun + 12
    assert "virtqueue_add_sgs" in gdb.do("reverse-finish")
    assert gdb.icount() <= begun
    gdb.do("delete")
    gdb.do(f"monitor seek {returned}")
    gdb.do("maintenance flush register-cache")
    assert "virtio_queue_rq" in gdb.do("next")  # to where virtblk_add_req returns
    later = gdb.icount()
    assert "virtblk_add_req" in gdb.do("reverse-stepi")
    assert gdb.icount() == later - 1
    assert "blk_mq_dispatch_rq_list" in gdb.do("up 2")
    assert "blk_mq_dispatch_rq_list" in gdb.do("info symbol $pc")
    gdb.do("frame 0")


def test_the_last_writer_of_a_ring_index(debian: Session) -> None:
    gdb, timeline = debian.gdb, debian.timeline
    shown = gdb.do("wb-request drive1/3")
    assert "instruction" in shown, shown
    device: Any = timeline.machine.devices["drive1"]
    queue = device.virtio.state.queues[0]
    base = Memory(timeline.machine.cpu).read(debian.symbols["page_offset_base"], 8)
    assert base is not None
    index = int.from_bytes(base, "little") + queue.driver + 2
    before = gdb.value(f"*(unsigned short *){index:#x}")
    assert before >= 3
    gdb.do(f"watch *(unsigned short *){index:#x}")
    assert "Old value" in gdb.do("reverse-continue")
    assert gdb.value(f"*(unsigned short *){index:#x}") == before - 1
    assert "virtqueue_add" in gdb.do("info symbol $pc")
    gdb.do("delete")
    assert "outstanding" in gdb.do("wb-queue drive1")
    used = index + queue.device - queue.driver
    assert "drive1 by DMA for drive1/" in gdb.do(f"wb-writer *(unsigned short *){used:#x}")
    # A watchpoint hears of what the device writes, too, in both directions.
    value = f"*(unsigned short *){used:#x}"
    old = gdb.value(value)
    gdb.do(f"watch {value}")
    assert "written by drive1 by DMA" in gdb.do("continue")
    assert gdb.value(value) == old + 1
    assert "New value" in gdb.do("continue")
    assert gdb.value(value) == old + 2
    written = gdb.icount()
    assert f"New value = {old + 1}" in gdb.do("reverse-continue")
    assert written - 3 <= gdb.icount() < written
    assert f"New value = {old}" in gdb.do("reverse-continue")
    gdb.do("delete")
    gdb.do("wb-request drive1/3")
    assert "virtqueue_add" in gdb.do(f"wb-writer *(unsigned short *){index:#x}")


def test_watching_a_device_register(debian: Session) -> None:
    gdb = debian.gdb
    gdb.do("wb-seek request:ide0/4")
    gdb.do("monitor watch ide0.COMMAND write value 0xc8 count 2")
    gdb.do("continue")
    assert "0xc8" in gdb.do("wb-accesses 1")
    assert "READ DMA" in gdb.do("monitor info ide0")
    gdb.do("monitor unwatch")


@pytest.mark.parametrize(
    "watch",
    [
        "irq IRQ14 high", "request drive1 kind VIRTIO_BLK_T_IN length 4096-0x100000",
        "request any lba 0-7", "dma 0 0x10000000 write",
    ],
)  # fmt: skip
def test_events_are_stopped_at_in_both_directions(debian: Session, watch: str) -> None:
    gdb = debian.gdb
    gdb.do("wb-seek request:ide0/1")
    assert "watching" in gdb.do(f"wb watch {watch}")
    places = []
    for _ in range(3):
        gdb.do("continue")
        places.append(gdb.icount())
    back = []
    for _ in range(2):
        gdb.do("reverse-continue")
        back.append(gdb.icount())
    gdb.do("wb unwatch")
    assert places == sorted(set(places))
    for forward, backward in zip(places[:0:-1], back, strict=True):
        assert 0 <= forward - backward <= 1


def test_a_breakpoint_waits_for_a_module_to_be_loaded(debian: Session) -> None:
    gdb = debian.gdb
    gdb.do("wb-symbols none")
    gdb.do("wb-seek 92%")
    shown = gdb.do("wb-symbols auto")
    assert "ata_piix" in shown
    assert "virtio_blk" not in shown
    gdb.do("set breakpoint pending on")
    assert "pending" in gdb.do("break virtblk_probe")
    assert "virtblk_probe" in gdb.do("continue")
    assert gdb.value("$pc") == debian.symbols["virtblk_probe"]
    # Also the functions that the kernel throws away afterwards.
    assert "in virtio_blk_init ()" in gdb.do("bt")
    gdb.do("wb-symbols manual")
    gdb.do("delete")
    gdb.do("wb-seek end")
    assert "button" in gdb.do("wb-symbols")
    assert "ide0.STATUS" in gdb.do("complete wb watch ide0.ST")
    assert "expected: wb-symbols [auto|manual|none]" in gdb.do("wb-symbols nonsense")


def test_drgn_sees_the_kernel(debian: Session) -> None:
    drgn = pytest.importorskip("drgn")
    machine = debian.timeline.machine
    made, lacks = program(machine)
    assert "no types" in lacks or not lacks
    assert made.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    banner = made.symbol("linux_banner").address
    assert banner == debian.symbols["linux_banner"]
    assert made.read(banner, 13) == b"Linux version"
    assert made.symbol(debian.symbols["virtblk_probe"] + 5).name == "virtblk_probe"


@pytest.mark.parametrize("form", ["plain", "paging", "compress"])
def test_drgn_reads_a_dump(debian: Session, tmp_path: Path, form: str) -> None:
    drgn = pytest.importorskip("drgn")
    debian.gdb.do("monitor seek end")
    machine = debian.timeline.machine
    made = dump.write(
        machine, tmp_path / "core", paging=form == "paging", compress=form == "compress"
    )
    opened = drgn.Program()
    opened.set_core_dump(str(made.path))
    assert opened.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert opened["UTS_RELEASE"].string_().decode() == made.release != ""
    banner = debian.symbols["linux_banner"]
    assert opened.read(banner, 13) == b"Linux version"
    assert opened.read(0x1000, 4096, physical=True) == machine.memory.read(0x1000, 4096)
    if form != "paging" and shutil.which("makedumpfile") is not None:
        log = tmp_path / "dmesg"
        subprocess.run(["makedumpfile", "--dump-dmesg", made.path, log], check=True, timeout=60)
        assert "Linux version " + made.release in log.read_text(encoding="utf-8", errors="replace")


def test_to_the_start_and_to_the_end(debian: Session) -> None:
    gdb, timeline = debian.gdb, debian.timeline
    assert "No more reverse-execution history" in gdb.do("reverse-continue")
    assert gdb.icount() == 0
    assert "No more reverse-execution history" in gdb.do("continue")
    assert timeline.trace.end is not None
    assert timeline.machine.digest().hex() == timeline.trace.end.digest
