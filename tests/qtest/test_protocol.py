"""The protocol: lines in, lines out."""

import random

import pytest

from workbench.core.config import MachineConfig
from workbench.qtest.assembly import assemble
from workbench.qtest.options import parse
from workbench.qtest.protocol import Protocol
from workbench.qtest.testbed import MOST_BYTES, Testbed

MEGABYTE = 1 << 20


@pytest.fixture
def protocol():
    return Protocol(Testbed(MachineConfig(ram_bytes=16 * MEGABYTE)))


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["endianness"], "OK little"),
        (["writeq 0x1000 0x1122334455667788", "readl 0x1002"], "OK 0x0000000033445566"),
        (["writeb 4096 0x1ff", "readw 010000"], "OK 0x00000000000000ff"),
        (["writel 0x1000 -2", "readq 0x1000"], "OK 0x00000000fffffffe"),
        (["write 0x1000 4 0xA1b2", "read 0x0fff 6"], "OK 0x00a1b2000000"),
        (["write 0x1000 2 0x010203", "read 0x1000 4"], "OK 0x01020000"),
        (["memset 0x2000 3 0x155", "b64read 0x2000 4"], "OK VVVVAA=="),
        (["b64write 0x2000 2 AQID", "read 0x2000 3"], "OK 0x010200"),
        (["memset 0x2000 0 1", "readb 0x2000"], "OK 0x0000000000000000"),
        (["outl 0xcf8 0x80000000", "inl 0xcfc"], "OK 0x12378086"),
        (["outl 0xcf8 0x80000002", "inw 0xcfc"], "OK 0x1237"),
        (["inb 0x1234"], "OK 0x00ff"),
        (["readl 0xd0000000"], "OK 0x00000000ffffffff"),
        (["read 0xfeffffe 4"], "OK 0xffffffff"),
        (["readl 0xfec00000"], "OK 0x0000000000000000"),
        (["clock_step 1500"], "OK 1500"),
        (["clock_step 1500", "clock_set 1000"], "OK 1500"),
        (["clock_set 0x100000"], "OK 1048576"),
    ],
)
def test_answers(protocol, lines, answer):
    for line in lines[:-1]:
        assert protocol.line(line) in (["OK"], [f"OK {line.split()[-1]}"])
    assert protocol.line(lines[-1]) == [answer]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "Unknown command ''"),
        ("jump 1", "Unknown command 'jump'"),
        ("inb", "expected 1 words after inb, not 0"),
        ("clock_step 1 2", "expected 0 or 1 words after clock_step, not 2"),
        ("inb 0x10000", "expected a port up to 0xffff, not 0x10000"),
        ("inb 1_0", "expected a number, not '1_0'"),
        ("readb 08", "expected a number, not '08'"),
        ("write 0 2 0xg0", "expected data as 0x and pairs of hexadecimal digits"),
        ("b64write 0 2 ???", "expected data in base64"),
        ("read 0 0xffffffffffff", f"expected at most {MOST_BYTES} bytes in one access"),
        ("clock_set 0xffffffffffffffff", "expected a time of at most 2^63 ns"),
        ("irq_intercept_in nobody", "Unknown device"),
        ("set_irq_in ioapic unnamed-gpio-in 24 1", "expected an interrupt from 0 to 23, not 24"),
        ("module_load a b", "there is no module 'ab'"),
    ],
)
def test_what_is_wrong_is_told(protocol, line, sentence):
    (answer,) = protocol.line(line)
    assert answer.startswith(f"FAIL {sentence}")


def test_time_stands_still_without_the_clock(protocol):
    for _ in range(100):
        protocol.line("inb 0x70")
    assert protocol.line("clock_step 0") == ["OK 0"]


def test_a_step_ends_at_the_next_timer(protocol):
    """Channel 0 of the 8254: 1000 ticks of 1.193182 MHz are 838.095 us."""
    for line in ("outb 0x43 0x30", "outb 0x40 0xe8", "outb 0x40 0x03", "irq_intercept_in ioapic"):
        assert protocol.line(line) == ["OK"]
    *events, answer = protocol.line("clock_step")
    assert events == ["IRQ raise 0"]
    assert answer in ("OK 838933", "OK 838934", "OK 838095", "OK 838096")


def test_interrupts_are_told_once_and_before_the_answer(protocol):
    protocol.line("irq_intercept_in ioapic")
    assert protocol.line("set_irq_in ioapic unnamed-gpio-in 11 1") == ["IRQ raise 11", "OK"]
    assert protocol.line("set_irq_in ioapic unnamed-gpio-in 11 1") == ["OK"]
    assert protocol.line("set_irq_in ioapic unnamed-gpio-in 11 0") == ["IRQ lower 11", "OK"]


def test_hostile_lines():
    """Whatever comes: exactly one answer each, the last line."""
    wanted = parse(["-device", "e1000", "-drive", "if=virtio,file=null-co://,size=1048576"])
    protocol = Protocol(assemble(wanted, firmware=True).testbed)
    rng = random.Random(7)
    words = [
        "clock_step", "clock_set", "read", "write", "b64read", "b64write", "memset", "inb", "inw",
        "inl", "outb", "outw", "outl", "readb", "readq", "writew", "writel", "set_irq_in", "0",
        "1", "-1", "0x", "0x10", "0xcf8", "0xf0000000", "0xffffffffffffffff", "4096", "\0", "é",
        "ioapic", "unnamed-gpio-in", "0x00ff", "AAAA", "1e9", "", "x" * 300,
    ]  # fmt: skip
    for _ in range(3000):
        line = " ".join(rng.choice(words) for _ in range(rng.randrange(1, 6)))
        answer = protocol.line(line)
        assert answer[-1].split(" ")[0] in ("OK", "FAIL"), line
        assert all(event.startswith("IRQ ") for event in answer[:-1]), line
