"""The real gdb on a recording."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pygdbmi.gdbcontroller import GdbController

from workbench import gdbstub
from workbench.gdbstub.server import Server, listen
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.timeline import Timeline

COMMANDS = Path(gdbstub.__file__).with_name("gdb_commands.py")
pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


class Gdb:
    """gdb by its console commands."""

    def __init__(self, address: str, seconds: int = 20, architecture: str = "i386:x86-64") -> None:
        self._seconds = seconds
        # gdb 13 may crash when it is told to exit; nobody wants to keep that.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self._mi = GdbController(["gdb", "--nx", "--quiet", "--interpreter=mi3"], 0.02)
        self.do("set pagination off")
        self.do(f"set architecture {architecture}")
        self.do(f"target remote {address}")

    def do(self, command: str) -> str:
        """Run a command to its end, also to the stop of the guest; gives the console's text."""
        text, waiting, running = "", True, False
        moves = re.match(r"(reverse-)?(continue|stepi|step|next|finish|until)\b", command)
        answers = self._mi.write(
            f'-interpreter-exec console "{command}"', timeout_sec=self._seconds
        )
        while True:
            for answer in answers:
                if answer["type"] in ("console", "target", "log"):
                    text += answer["payload"] or ""
                elif answer["type"] == "result":
                    running = answer["message"] == "running"
                    waiting = bool(moves) and running
                    if answer["message"] == "error":
                        text += answer["payload"]["msg"]
                elif answer["message"] == "stopped" and running:
                    waiting = False
            if not waiting:
                return text
            answers = self._mi.get_gdb_response(timeout_sec=self._seconds)

    def interrupted(self, command: str, seconds: float) -> None:
        """Run a move, and press Ctrl-C after some time."""
        self._mi.write(
            f'-interpreter-exec console "{command}"', timeout_sec=0, raise_error_on_timeout=False
        )
        time.sleep(seconds)
        self._mi.gdb_process.send_signal(signal.SIGINT)
        stopped = False
        while not stopped:
            answers = self._mi.get_gdb_response(timeout_sec=self._seconds)
            stopped = any(answer["message"] == "stopped" for answer in answers)

    def value(self, expression: str) -> int:
        """The value of an expression."""
        found = re.search(r"= (0x[0-9a-f]+)", self.do(f"print/x {expression}"))
        assert found is not None
        return int(found[1], 16)

    def icount(self) -> int:
        """The position."""
        found = re.search(r"instruction ([\d,]+)", self.do("monitor when"))
        assert found is not None
        return int(found[1].replace(",", ""))

    def close(self) -> None:
        """End gdb."""
        self._mi.exit()


@pytest.fixture
def server(timeline: Timeline, tmp_path: Path) -> Iterator[Server]:
    listener = listen(f"unix:{tmp_path / 'gdb'}")
    with Server(Stub(ReplayTarget(timeline)), listener) as found:
        thread = threading.Thread(target=found.serve, daemon=True)
        thread.start()
        yield found
        found.stub.killed = True
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def stub(timeline: Timeline) -> Stub:
    return Stub(ReplayTarget(timeline))


@pytest.fixture
def gdb(server: Server) -> Iterator[Gdb]:
    found = Gdb(server.address)
    yield found
    found.close()


def test_registers_and_memory(gdb: Gdb, timeline: Timeline) -> None:
    gdb.do("monitor seek 20000")
    gdb.do("maintenance flush register-cache")
    cpu = timeline.machine.cpu
    assert gdb.value("$rip") == cpu.get("rip")
    assert gdb.value("$rsp") == cpu.get("rsp")
    assert gdb.value("$cr3") == cpu.get("cr3")
    assert gdb.value("$efer") == cpu.get("efer")
    code = int.from_bytes(cpu.read_linear(cpu.get("rip"), 8), "little")
    assert gdb.value("*(unsigned long long *)$rip") == code
    assert "v4_float" in gdb.do("info registers xmm0")
    assert "Cannot access memory" in gdb.do("x/x 0xffff800000000000")


def test_a_seek_is_a_stop_for_who_listens(gdb: Gdb, timeline: Timeline) -> None:
    """gdb -tui and what drives gdb by MI show the new place then."""
    gdb.do(f"source {COMMANDS}")
    for place in ("20000", "50%"):
        answers = gdb._mi.write(f'-interpreter-exec console "wb-seek {place}"', timeout_sec=20)
        while not any(answer["type"] == "result" for answer in answers):
            answers += gdb._mi.get_gdb_response(timeout_sec=20)
        (frame,) = (a["payload"]["frame"] for a in answers if a["message"] == "stopped")
        assert int(frame["addr"], 16) == timeline.machine.cpu.get("rip") == gdb.value("$rip")


def test_steps_in_both_directions(gdb: Gdb) -> None:
    pcs = [gdb.value("$pc")]
    for _ in range(5):
        gdb.do("stepi")
        pcs.append(gdb.value("$pc"))
    assert gdb.icount() == 5
    back = [gdb.value("$pc")]
    for _ in range(5):
        gdb.do("reverse-stepi")
        back.append(gdb.value("$pc"))
    assert back[::-1] == pcs
    assert "No more reverse-execution history" in gdb.do("reverse-stepi")


def test_breakpoints_in_both_directions(gdb: Gdb) -> None:
    gdb.do("monitor seek 20000")
    gdb.do("maintenance flush register-cache")
    pc = gdb.value("$pc")
    gdb.do("monitor seek 10000")
    gdb.do("maintenance flush register-cache")
    gdb.do(f"hbreak *{pc:#x}")
    counts = []
    for _ in range(3):
        assert "Breakpoint 1" in gdb.do("continue")
        assert gdb.value("$pc") == pc
        counts.append(gdb.icount())
    assert counts == sorted(counts)
    for count in counts[1::-1]:
        assert "Breakpoint 1" in gdb.do("reverse-continue")
        assert gdb.icount() == count
    gdb.do("delete")
    assert "No more reverse-execution history" in gdb.do("continue")
    assert "shutdown" in gdb.do("monitor when")
    assert "No more reverse-execution history" in gdb.do("reverse-continue")
    assert gdb.icount() == 0


def test_conditions_are_evaluated_here(gdb: Gdb, timeline: Timeline) -> None:
    """gdb sends its conditions as bytecode; false hits never reach it, both ways."""
    gdb.do("monitor seek 20000")
    gdb.do("maintenance flush register-cache")
    pc = gdb.value("$pc")
    gdb.do("monitor seek 10000")
    gdb.do("set breakpoint condition-evaluation target")
    gdb.do("set breakpoint always-inserted on")
    gdb.do(f"hbreak *{pc:#x}")
    seen = []
    for _ in range(6):
        assert "Breakpoint 1" in gdb.do("continue")
        seen.append((gdb.icount(), gdb.value("$rcx"), gdb.value("$rsp")))
    icount, rcx, rsp = seen[4]
    gdb.do("monitor seek 10000")
    gdb.do("maintenance flush register-cache")
    gdb.do(f"condition 1 $rcx == {rcx:#x} && $rsp == {rsp:#x}")
    assert "target evals" in gdb.do("info breakpoints")
    expected = [count for count, *registers in seen if registers == [rcx, rsp]]
    gdb.do("continue")
    assert gdb.icount() == expected[0]
    gdb.do(f"monitor seek {seen[5][0]}")
    gdb.do("maintenance flush register-cache")
    gdb.do("reverse-continue")
    assert gdb.icount() == max(count for count in expected if count < seen[5][0]) == icount
    gdb.do("condition 1 *(int *)0xffff900000000000 == 1")
    gdb.do("continue")
    assert gdb.icount() == seen[5][0]


def test_a_dprintf_prints_from_here(gdb: Gdb) -> None:
    gdb.do("monitor seek 20000")
    gdb.do("maintenance flush register-cache")
    pc = gdb.value("$pc")
    gdb.do("monitor seek 19999")
    gdb.do("set dprintf-style agent")
    gdb.do(f'dprintf *{pc:#x},\\"here %lx\\\\n\\", $rip')
    gdb.do("hbreak *($pc + 1)")
    shown = gdb.do("continue")
    assert f"here {pc:x}" in shown


def test_the_architecture_follows_the_mode(gdb: Gdb, timeline: Timeline) -> None:
    """The guest begins in 32-bit code; gdb takes another description when it is told to."""
    eax = timeline.machine.cpu.get("rax") & 0xFFFFFFFF
    assert "32-bit code" in gdb.do("monitor architecture auto")
    gdb.do("set architecture auto")
    gdb.do("unset tdesc filename")
    assert gdb.value("$eip") == timeline.machine.cpu.get("rip")
    assert gdb.value("$eax") == eax
    assert "i386" in gdb.do("show architecture")
    gdb.do("stepi")
    assert gdb.icount() == 1
    gdb.do("monitor architecture i386:x86-64")
    gdb.do("unset tdesc filename")
    assert gdb.value("$rip") == timeline.machine.cpu.get("rip")
    assert gdb.value("$cs_base") == 0


def test_threads_and_memory_map(gdb: Gdb) -> None:
    assert "CPU 0, protected mode, 32-bit code, CPL 0" in gdb.do("info threads")
    assert "0xffff800000000000" in gdb.do("info mem")
    assert "Cannot" not in gdb.do("x/4x $pc")


def test_a_watchpoint_finds_the_last_writer(gdb: Gdb) -> None:
    gdb.do("monitor seek 3000000")
    gdb.do("maintenance flush register-cache")
    stack = gdb.value("$rsp") - 8
    assert "atchpoint" in gdb.do(f"watch *(long *){stack:#x}")
    assert "Old value" in gdb.do("continue")
    after = gdb.icount()
    value = gdb.value(f"*(long *){stack:#x}")
    gdb.do("stepi")
    assert "Old value" in gdb.do("reverse-continue")
    assert gdb.icount() == after - 1
    assert gdb.value(f"*(long *){stack:#x}") != value


def test_a_device_register_is_watched(gdb: Gdb) -> None:
    assert "watching" in gdb.do("monitor watch com1.THR write value 0x0a")
    assert "stopped by: com1.THR write value 0x0a" in gdb.do("continue")
    assert re.search(r"com1\.THR +1 <- 0xa", gdb.do("monitor log 1"))


def test_a_watch_with_a_count(gdb: Gdb) -> None:
    """The third line feed from here, forward and back."""
    gdb.do("monitor watch com1.THR write value 0x0a")
    places = []
    for _ in range(7):
        gdb.do("continue")
        places.append(gdb.icount() - 1)
    gdb.do("monitor unwatch")
    gdb.do("monitor seek start")
    assert "count 3" in gdb.do("monitor watch com1.THR write value 0x0a count 3")
    gdb.do("continue")
    gdb.do("continue")
    assert gdb.icount() - 1 == places[5]
    gdb.do("stepi 2")
    gdb.do("reverse-continue")
    assert gdb.icount() == places[3]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("com1.THR count 0", "expected a count from 1 to"),
        ("com1.THR count many", "expected a number, not 'many'"),
        ("count 3", "expected what to watch"),
        ("com1.NONE", "has no register 'NONE'"),
        ("irq IRQ99", "no line 'IRQ99'; there are: IRQ0"),
        ("request nobody", "no device 'nobody'; there are: any"),
        ("dma", "expected dma ADDRESS"),
    ],
)
def test_a_watch_that_is_none(stub: Stub, words: str, why: str) -> None:
    assert why in stub.monitor.run(f"watch {words}")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x zzz", "expected a number, not 'zzz'"),
        ("x 0 0", "expected 1 to 4096 bytes, not 0"),
        ("log few", "expected a number, not 'few'"),
        ("log 0", "expected 1 to 1000 lines, not 0"),
        ("writer here", "expected a number, not 'here'"),
        ("log 'x", 'no closing quotation in "log \'x"'),
    ],
)
def test_a_command_that_is_wrong(stub: Stub, line: str, why: str) -> None:
    assert stub.monitor.run(line).rstrip() == why


def test_writing_diverts_and_goes_back(gdb: Gdb) -> None:
    gdb.do("monitor seek 20000")
    gdb.do("maintenance flush register-cache")
    rax = gdb.value("$rax")
    gdb.do("set $rax = 0x55aa")
    assert gdb.value("$rax") == 0x55AA
    assert "diversion since 20,000" in gdb.do("monitor when")
    gdb.do("monitor drop")
    gdb.do("maintenance flush register-cache")
    assert gdb.value("$rax") == rax


def test_detach_and_attach_again(gdb: Gdb, server: Server) -> None:
    gdb.do("stepi")
    gdb.do("detach")
    gdb.do(f"target remote {server.address}")
    assert gdb.icount() == 1


def test_monitor_looks_into_devices(gdb: Gdb) -> None:
    assert "instruction 20,000" in gdb.do("monitor seek 20k")
    shown = gdb.do("monitor info irq")
    assert "8259" in shown
    assert "\n*" not in shown
    gdb.do("monitor info cpu")
    gdb.do("stepi")
    assert "*  rip" in gdb.do("monitor info cpu")
    assert "deadlines" in gdb.do("monitor info timers")
    assert "base addresses" in gdb.do("monitor info pci")
    assert "supervisor" in gdb.do("monitor info tlb")
    assert "LCR" in gdb.do("monitor info registers com1")
    assert "no device with queues" in gdb.do("monitor info queues")


def test_bookmarks_and_positions(gdb: Gdb, timeline: Timeline) -> None:
    end = timeline.end_icount
    gdb.do("monitor seek 50%")
    assert gdb.icount() == end // 2
    assert f"middle is instruction {end // 2:,}" in gdb.do("monitor bookmark middle")
    gdb.do("monitor seek start")
    assert gdb.icount() == 0
    assert "middle" in gdb.do("monitor bookmarks")
    gdb.do("monitor seek bookmark:middle")
    assert gdb.icount() == end // 2
    gdb.do("monitor seek access:100")
    first = gdb.icount()
    gdb.do("monitor seek access 100")
    assert gdb.icount() == first
    assert "is forgotten" in gdb.do("monitor bookmark -d middle")
    assert "there are none" in gdb.do("monitor bookmarks")


def test_help_and_completion(gdb: Gdb) -> None:
    shown = gdb.do("monitor help")
    for name in ("info devices", "seek POSITION", "writer ADDRESS [BYTES]", "bookmark NAME"):
        assert name in shown
    assert "bookmark:NAME" in gdb.do("monitor help seek")
    assert "no command 'x1'" in gdb.do("monitor help x1")
    assert gdb.do("monitor complete bo").split() == ["bookmark", "bookmarks"]
    assert "com1.LCR" in gdb.do("monitor complete watch com1.L").split()
    assert "irq" in gdb.do("monitor complete info i").split()
    assert gdb.do("monitor complete watch irq IRQ1").split()[:2] == ["IRQ1", "IRQ10"]
    assert gdb.do("monitor complete watch irq IRQ4 h").split() == ["high"]
    assert gdb.do("monitor complete watch request any k").split() == ["kind"]


def test_monitor_says_what_is_wrong(gdb: Gdb) -> None:
    assert "no command 'nonsense'" in gdb.do("monitor nonsense")
    assert "expected" in gdb.do("monitor seek")
    assert "there are:" in gdb.do("monitor info registers nothing")
    assert "expected a position" in gdb.do("monitor seek nowhere")
    assert "expected one of" in gdb.do("monitor info nothing")
    assert "com1" in gdb.do("monitor info devices")
    assert "cc" not in gdb.do("monitor x 0x100000 16").split("\n")[0][:3]
