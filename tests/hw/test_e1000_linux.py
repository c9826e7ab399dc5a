"""Debian's own e1000 driver on our 82540EM: pings, a download and an upload (which the driver has
segmented by the controller), then the replay without network.

Recorded twice over: through the user network, and over a stream socket through a real QEMU. The
first recording's register accesses are counted and compared with QEMU's own 82540EM.
"""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from guests.initramfs import run_option
from guests.programs import with_programs
from tests.net.test_sockets import free_port, qemu
from workbench.hw.e1000.mac import MAP
from workbench.trace.reader import open_trace
from workbench.trace.requests import Requests

Access = tuple[bool, int, int]
"""Of a register: is it a write, where, and the value."""

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = [pytest.mark.slow, pytest.mark.guest]
DATA = random.Random(1).randbytes(1 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
UPLOAD = b"".join(b"%d\n" % n for n in range(1, 50001))
SCRIPT = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
n=0
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done
ping -c 3 -i 0.2 10.0.2.2
wget -q -O - http://10.0.2.2:{port}/data | sha256sum
seq 1 50000 > /tmp/up
wget -q -O - --post-file=/tmp/up http://10.0.2.2:{port}/upload
ifconfig eth0 | grep errors
dmesg | grep e1000
"""

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
SELF_TEST = """\
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
n=0
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ] && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done
ping -c 1 -W 1 10.0.2.2
ethtool -e eth0 length 16
ethtool -S eth0
ethtool -t eth0 offline
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def do_POST(self) -> None:
        answer = b"took other data\n"
        if self.rfile.read(int(self.headers["Content-Length"])) == UPLOAD:
            answer = b"took all of it\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield web.server_port
    web.shutdown()
    web.server_close()


def workbench(*arguments: object) -> str:
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def record(kernel: Path, initrd: Path, trace: Path, nic: str, port: int) -> str:
    append = f"console=ttyS0 quiet {run_option(SCRIPT.format(port=port))}"
    return workbench(
        "record", "--kernel", kernel, "--initrd", initrd, "--append", append, "--nic", nic,
        "-o", trace, "--timeout", 200,
    )  # fmt: skip


def check(output: str) -> None:
    assert "3 packets transmitted, 3 packets received, 0% packet loss" in output
    assert SHA256 in output
    assert "took all of it" in output
    assert "errors:0 dropped:0 overruns:0 frame:0" in output
    assert "NIC Link is Up 1000 Mbps Full Duplex" in output
    assert "52:54:00:00:00:07" in output


@pytest.fixture(scope="module")
def recording(guest, server, tmp_path_factory):
    """A trace through the user network."""
    made = guest("generic")
    trace = tmp_path_factory.mktemp("e1000") / "net.wbt"
    nic = "e1000,mac=52:54:00:00:00:07,user"
    check(record(made.kernel, made.images["drivers"], trace, nic, server))
    return trace


def test_replay_without_network(recording):
    replayed = workbench("replay", recording)
    check(replayed)
    assert "identical" in replayed


def test_an_upload_brings_few_acknowledgements(recording):
    """Segments go into the network whole, so it does not answer each (decision 157)."""
    with open_trace(recording) as trace:
        frames = [row["data"] for row in trace.inputs.to_pylist() if row["kind"] == "frame"]
    short = [data for data in frames if len(data) <= 60 and data[12:14] == b"\x08\0"]
    acknowledgements = sum(data[23] == 6 for data in short)
    assert 1 < acknowledgements < len(UPLOAD) // 1460 / 2


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_its_frames_in_tshark(recording, tmp_path):
    """Both directions, each with its descriptor; checksums and sequences are right."""
    workbench("export", recording, "--pcapng", tmp_path / "net.pcapng")
    fields = ("frame.comment", "_ws.col.Protocol", "tcp.analysis.lost_segment", "tcp.len")
    command = [
        "tshark",
        "-r",
        tmp_path / "net.pcapng",
        "-T",
        "fields",
        "-o",
        "tcp.check_checksum:TRUE",
    ]
    for field in fields:
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    frames = [line.split("\t") for line in shown.splitlines()]
    with open_trace(recording) as trace:
        done = [r for r in Requests(trace) if r.status == "ok"]
    ways = Counter(comment.split(" ")[2].rstrip(",") for comment, *_ in frames)
    assert ways["received"] >= sum(r.kind == "rx" for r in done)
    assert {"ARP", "TCP"} <= {protocol for _, protocol, *_ in frames}
    assert not any(lost for _, _, lost, _ in frames)
    # What the controller segments is one request and several frames.
    pattern = re.compile(r"sent by net0 at instruction [\d,]+, request (net0/\d+), descriptor")
    sent = [match[1] for comment, *_ in frames if (match := pattern.search(comment))]
    assert ways["sent"] == len(sent) > len(set(sent))
    assert set(sent) == {r.name for r in done if r.kind == "tx"}


def accesses_of_ours(trace: Path) -> list[Access]:
    with open_trace(trace) as opened:
        rows = opened.accesses.to_pylist()
    return [
        (row["write"], row["offset"], row["value"])
        for row in rows
        if (row["device"], row["kind"]) == ("net0", "mmio")
    ]


def accesses_of_qemu(kernel: Path, initrd: Path, log: Path, port: int) -> list[Access]:
    assert QEMU is not None
    command = [
        QEMU, "-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
        "-append", f"console=ttyS0 quiet {run_option(SCRIPT.format(port=port))}",
        "-netdev", "user,id=n", "-device", "e1000,netdev=n,addr=3,mac=52:54:00:00:00:07",
        "-trace", "memory_region_ops_*", "-D", log,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    check(done.stdout)
    pattern = re.compile(
        r"memory_region_ops_(read|write) .* addr (0x\w+) value (0x\w+) .* name 'e1000-mmio'"
    )
    with log.open() as lines:
        found = (pattern.match(line) for line in lines)
        return [(m[1] == "write", int(m[2], 16) & 0x1_FFFF, int(m[3], 16)) for m in found if m]


def counted(accesses: list[Access]) -> Counter[tuple[bool, str]]:
    """How often each register is read and written; of MDIC, each of the PHY instead.

    Every two seconds of guest time, which with QEMU is that of the host, the driver's watchdog does
    one of two things. While there is no link it reads PSTATUS twice; with a link it reads the
    statistics, each register once, and two of the PHY. What belongs to that is taken out.
    """
    names = {reg.offset: reg.name for reg in MAP.regs}
    statistics = {reg.name for reg in MAP.regs if reg.attr == "stats"}
    found: Counter[tuple[bool, str]] = Counter()
    commands = 0
    for write, offset, value in accesses:
        name = names[offset]
        if name == "MDIC":
            commands += write
            if not write:
                continue
            write, name = value >> 26 & 3 == 1, f"PHY {value >> 16 & 31}"
        found[write, name] += 1
    assert (
        sum(not write and offset == MAP["MDIC"].offset for write, offset, _ in accesses) == commands
    )
    rounds = found[False, "CRCERRS"]
    assert rounds >= 1
    for name in statistics:
        assert found.pop((False, name), rounds) == rounds, name
    with_link = found.pop((False, "PHY 10"))
    assert 1 <= with_link == found.pop((False, "PHY 21")) <= rounds
    return found


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
def test_as_many_register_accesses_as_with_qemu(recording, guest, server, tmp_path):
    """The same kernel, initramfs and work. What packets and interrupts cause differs with their
    timing; all else is equal, register by register.
    """
    made = guest("generic")
    ours = counted(accesses_of_ours(recording))
    began = time.monotonic()
    log = tmp_path / "qemu.log"
    theirs = counted(accesses_of_qemu(made.kernel, made.images["drivers"], log, server))
    seconds = time.monotonic() - began
    timing = {"ICR", "ITR", "ICS", "IMS", "IMC", "RDT", "TDT"}
    timing.add("STATUS")  # read to flush writes of these
    polled = (False, "PHY 1")
    other = {key for key in ours | theirs if key[1] not in timing and key != polled}
    # The network stack sets the filters anew when an IPv6 address is ready: once more or less.
    filters = {"RCTL"} | {reg.name for reg in MAP.regs if reg.attr in ("mta", "ral", "rah")}
    for key in other:
        assert abs(ours[key] - theirs[key]) <= (1 if key[1] in filters else 0), key
    assert len(other) > 200
    # PSTATUS is read twice at a time, 20 times after a reset.
    assert ours[polled] >= 40
    more = theirs[polled] - ours[polled]
    assert more % 2 == 0
    assert abs(more) <= seconds + 2
    assert sum(ours.values()) == pytest.approx(sum(theirs.values()), rel=0.1)


@pytest.mark.skipif(shutil.which("ethtool", path=PATH) is None, reason="needs ethtool")
def test_the_drivers_own_self_test(guest, tmp_path):
    """Registers by patterns, EEPROM, each interrupt, frames through the PHY's loopback, link."""
    made = guest("generic")
    initrd = tmp_path / "initrd.gz"
    initrd.write_bytes(with_programs(made.images["drivers"].read_bytes(), ["ethtool"]))
    append = f"console=ttyS0 quiet {run_option(SELF_TEST)}"
    printed = workbench(
        "record", "--kernel", made.kernel, "--initrd", initrd, "--append", append, "--nic",
        "e1000,mac=52:54:00:00:00:07,none", "-o", tmp_path / "test.wbt", "--timeout", 200,
    )  # fmt: skip
    assert "The test result is PASS" in printed
    assert (
        len(re.findall(r"(?:Register|Eeprom|Interrupt|Loopback|Link) test .*\t 0\n", printed)) == 5
    )
    assert re.search(r"0x0000:\s+52 54 00 00 00 07", printed), "the EEPROM"
    assert re.search(r"tx_packets: [1-9]", printed)
    workbench("replay", tmp_path / "test.wbt")


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
def test_through_the_stream_socket_of_a_real_qemu(guest, server, tmp_path):
    made = guest("generic")
    port = free_port()
    nic = f"e1000,mac=52:54:00:00:00:07,stream,connect=127.0.0.1:{port}"
    with qemu(f"socket,listen=127.0.0.1:{port}"):
        check(record(made.kernel, made.images["drivers"], tmp_path / "q.wbt", nic, server))
