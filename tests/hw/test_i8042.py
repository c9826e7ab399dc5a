"""8042: the commands, the probe of a driver, translation, A20 and reset."""

from __future__ import annotations

from workbench.core.bus import Bus
from workbench.core.irq import IrqLine
from workbench.hw.i8042 import I8042
from workbench.hw.scancodes import SET2_OF_SET1, press, translate

DATA, STATUS, COMMAND = 0x60, 0x64, 0x64


class Pc:
    """Plays the guest."""

    def __init__(self) -> None:
        self.edges: list[bool] = []
        self.resets: list[str] = []
        self.a20: list[bool] = []
        irq, a20 = IrqLine("IRQ1", self.edges.append), IrqLine("A20", self.a20.append)
        self.kbc = I8042(irq, self.resets.append, a20)
        self.bus = Bus("pio", 0x10000)
        for window in self.kbc.windows():
            self.bus.map(window)

    def command(self, value: int, *data: int) -> None:
        self.bus.write(COMMAND, 1, value)
        for byte in data:
            self.bus.write(DATA, 1, byte)

    def keyboard(self, value: int) -> list[int]:
        self.bus.write(DATA, 1, value)
        return self.read()

    def status(self) -> int:
        return self.bus.read(STATUS, 1)

    def read(self) -> list[int]:
        """Everything that the controller has to say."""
        data = []
        while self.status() & 1:
            data.append(self.bus.read(DATA, 1))
        return data


def test_self_test_and_interface_test() -> None:
    pc = Pc()
    pc.command(0xAA)
    assert pc.read() == [0x55]
    pc.command(0xAB)
    assert pc.read() == [0]


def test_command_byte_is_as_the_bios_leaves_it_and_can_be_written() -> None:
    pc = Pc()
    pc.command(0x20)
    assert pc.read() == [0x65]
    pc.command(0x60, 0x74)
    pc.command(0x20)
    assert pc.read() == [0x74]
    pc.command(0x65, 0x99)
    pc.command(0x25)
    assert pc.read() == [0x99]


def test_status_tells_commands_from_data() -> None:
    pc = Pc()
    assert pc.status() == 0x14
    pc.command(0xAE)
    assert pc.status() == 0x1C
    pc.bus.write(DATA, 1, 0xEE)
    assert pc.status() == 0x15


def test_absent_auxiliary_port_fails_the_probe_of_linux_at_once() -> None:
    pc = Pc()
    pc.command(0xD3, 0x5A)
    assert pc.status() & 0x21 == 0x01  # an answer, but not from the auxiliary port
    assert pc.read() == [0x5A]
    pc.command(0xA9)
    assert pc.read() not in ([0x00], [0xFA], [0xFF])
    pc.command(0xD4, 0xF2)
    assert pc.read() == []


def test_probe_of_the_keyboard() -> None:
    pc = Pc()
    assert pc.keyboard(0xF2) == [0xFA, 0xAB, 0x41]
    assert pc.keyboard(0xED) == [0xFA]
    assert pc.keyboard(0x02) == [0xFA]
    assert pc.kbc.state.leds == 2
    assert pc.keyboard(0xF3) + pc.keyboard(0x00) == [0xFA, 0xFA]
    assert pc.keyboard(0xF0) + pc.keyboard(0x00) == [0xFA, 0xFA, 0x41]
    assert pc.keyboard(0xF4) == [0xFA]
    assert pc.keyboard(0xFF) == [0xFA, 0xAA]
    assert pc.keyboard(0xEE) == [0xEE]
    assert pc.keyboard(0x01) == [0xFE]


def test_key_in_set_1_and_in_set_2() -> None:
    pc = Pc()
    pc.kbc.receive("scan", press(0x2A, 0x1E))
    assert pc.read() == [0x2A, 0x1E, 0x9E, 0xAA]
    pc.command(0x60, 0x25)
    pc.kbc.receive("scan", press(0x1E))
    assert pc.read() == [0x1C, 0xF0, 0x1C]


def test_prefixes_pass_the_translation() -> None:
    pc = Pc()
    pc.kbc.receive("scan", bytes.fromhex("e0 75 e0 f0 75"))  # cursor up
    assert pc.read() == [0xE0, 0x48, 0xE0, 0xC8]


def test_translation_is_a_permutation() -> None:
    assert sorted(translate(code) for code in SET2_OF_SET1[1:]) == list(range(1, 128))


def test_interrupt_for_each_byte() -> None:
    pc = Pc()
    pc.kbc.receive("scan", press(0x1E))
    assert pc.edges == [True]
    pc.read()
    assert pc.edges == [True, False, True, False]


def test_no_interrupt_when_disabled() -> None:
    pc = Pc()
    pc.command(0x60, 0x44)
    pc.kbc.receive("scan", press(0x1E))
    assert pc.edges == []
    pc.command(0x60, 0x45)
    assert pc.edges == [True]


def test_command_byte_through_its_alias_moves_the_line() -> None:
    pc = Pc()
    pc.kbc.receive("scan", press(0x1E))
    pc.command(0x40, 0x44)
    assert pc.edges == [True, False]


def test_disabled_keyboard_waits() -> None:
    pc = Pc()
    pc.command(0xAD)
    pc.kbc.receive("scan", press(0x1E))
    assert pc.read() == []
    pc.command(0xAE)
    assert pc.read() == [0x1E, 0x9E]
    assert pc.keyboard(0xF5) == [0xFA]
    pc.kbc.receive("scan", press(0x1E))
    assert pc.read() == []


def test_a20() -> None:
    pc = Pc()
    pc.command(0xD1, 0xDD)
    assert pc.a20 == [False]
    pc.command(0xD0)
    assert pc.read() == [0xCD]
    pc.command(0xDF)
    assert pc.a20 == [False, True]


def test_reset_line() -> None:
    pc = Pc()
    pc.command(0xFE)
    assert pc.resets == ["i8042"]
    pc.command(0xFF)
    pc.command(0xD1, 0x02)
    assert pc.resets == ["i8042", "i8042"]


def test_full_keyboard_drops_answers() -> None:
    pc = Pc()
    for _ in range(100):
        pc.bus.write(DATA, 1, 0xEE)
    assert len(pc.read()) == 17


def test_words() -> None:
    data, command = Pc().kbc.windows()
    assert data.regmap is not None
    assert data.regmap.explain(0, 1, 0xED, write=True) == "KBC_DATA=0xed"
    assert command.regmap is not None
    assert command.regmap.explain(0, 1, 0xFE, write=True) == "KBC_COMMAND[CMD=pulse-reset]"
    assert command.regmap.explain(0, 1, 0x15, write=False) == "KBC_STATUS[OBF=1 SYS=1 UNLOCKED=1]"
