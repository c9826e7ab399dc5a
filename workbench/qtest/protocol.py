"""The qtest protocol: a line in, lines out.  No input or output of its own.

A request is a line of words; the answer is `OK`, with a value where there is one, or `FAIL` and a
sentence. Before an answer there may be lines `IRQ raise N` and `IRQ lower N`. Numbers are written
as in C: `0x` for hexadecimal, a leading `0` for octal. What is no request, or a wrong one, is
answered with `FAIL`, where QEMU ends with an assertion.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from workbench.hw.layout import PORT_PCI_CONFIG
from workbench.qtest.testbed import MOST_BYTES, Testbed, TestbedError

__all__ = ["MOST_LINE_BYTES", "Protocol"]

MOST_LINE_BYTES: Final = 2 * MOST_BYTES + 256
SIZES: Final = {"b": 1, "w": 2, "l": 4, "q": 8}
MASK: Final = (1 << 64) - 1
INTERCEPTABLE: Final = ("ioapic", "/machine/unattached/ioapic")

Handler = Callable[[list[str]], str]


class Protocol:
    """One client of a testbed."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self._out: list[str] = []
        self._levels: dict[int, bool] = {}
        self._low = 0  # bits 1:0 of what was written to CONFADD
        self._commands: dict[str, tuple[int, int, Handler]] = {
            "clock_step": (0, 1, self._clock_step),
            "clock_set": (1, 1, self._clock_set),
            "read": (2, 2, self._read),
            "write": (3, 3, self._write),
            "b64read": (2, 2, self._b64read),
            "b64write": (3, 3, self._b64write),
            "memset": (3, 3, self._memset),
            "endianness": (0, 0, lambda words: "little"),
            "irq_intercept_in": (1, 1, self._intercept),
            "irq_intercept_out": (1, 1, self._intercept),
            "set_irq_in": (4, 4, self._set_irq),
            "module_load": (2, 2, self._module_load),
        }
        for letter, size in SIZES.items():
            if size < 8:
                self._commands[f"in{letter}"] = (1, 1, self._port_in(size))
                self._commands[f"out{letter}"] = (2, 2, self._port_out(size))
            self._commands[f"read{letter}"] = (1, 1, self._load(size))
            self._commands[f"write{letter}"] = (2, 2, self._store(size))

    def line(self, text: str) -> list[str]:
        """Execute a request; gives the lines of the answer, which comes last."""
        words = text.rstrip("\r\n").split(" ")
        command = self._commands.get(words[0])
        if command is None:
            answer = f"FAIL Unknown command '{words[0][:80]}'"
        else:
            least, most, handler = command
            given = [word for word in words[1:] if word]
            if not least <= len(given) <= most:
                wanted = f"{least}" if least == most else f"{least} or {most}"
                answer = f"FAIL expected {wanted} words after {words[0]}, not {len(given)}"
            else:
                try:
                    value = handler(given)
                    answer = f"OK {value}" if value else "OK"
                except TestbedError as error:
                    answer = f"FAIL {error}"
        return [*self.events(), answer]

    def events(self) -> list[str]:
        """Lines that are due without a request."""
        out, self._out = self._out, []
        return out

    # -- time

    def _clock_step(self, words: list[str]) -> str:
        return str(self.testbed.step(number(words[0]) if words else None))

    def _clock_set(self, words: list[str]) -> str:
        return str(self.testbed.set_clock(number(words[0])))

    # -- ports and memory

    def _port_in(self, size: int) -> Handler:
        def handler(words: list[str]) -> str:
            port = self._config_port(_port(words[0]), size)
            return f"0x{self.testbed.port_read(port, size):04x}"

        return handler

    def _port_out(self, size: int) -> Handler:
        def handler(words: list[str]) -> str:
            port = _port(words[0])
            value = number(words[1]) & (1 << 8 * size) - 1
            if port == PORT_PCI_CONFIG and size == 4:
                self._low = value & 3
            self.testbed.port_write(self._config_port(port, size), size, value)
            return ""

        return handler

    def _config_port(self, port: int, size: int) -> int:
        """QEMU takes bits 1:0 of CONFADD, which PCI reserves, for a part of the address, and its
        client library counts on that.
        """
        if port == PORT_PCI_CONFIG + 4 and self._low + size <= 4:
            return port + self._low
        return port

    def _load(self, size: int) -> Handler:
        return lambda words: f"0x{self.testbed.load(number(words[0]), size):016x}"

    def _store(self, size: int) -> Handler:
        def handler(words: list[str]) -> str:
            value = number(words[1]) & (1 << 8 * size) - 1
            self.testbed.store(number(words[0]), size, value)
            return ""

        return handler

    def _read(self, words: list[str]) -> str:
        return "0x" + self.testbed.read(number(words[0]), _length(words[1])).hex()

    def _write(self, words: list[str]) -> str:
        digits = words[2].removeprefix("0x")
        length = _length(words[1])
        try:
            data = bytes.fromhex(digits[: 2 * length])
        except ValueError:
            raise TestbedError("expected data as 0x and pairs of hexadecimal digits") from None
        self.testbed.write(number(words[0]), data.ljust(length, b"\0"))
        return ""

    def _b64read(self, words: list[str]) -> str:
        data = self.testbed.read(number(words[0]), _length(words[1]))
        return base64.b64encode(data).decode()

    def _b64write(self, words: list[str]) -> str:
        try:
            data = base64.b64decode(words[2], validate=True)
        except ValueError:
            raise TestbedError("expected data in base64") from None
        self.testbed.write(number(words[0]), data[: _length(words[1])])
        return ""

    def _memset(self, words: list[str]) -> str:
        data = bytes([number(words[2]) & 0xFF]) * _length(words[1])
        self.testbed.write(number(words[0]), data)
        return ""

    # -- interrupts

    def _intercept(self, words: list[str]) -> str:
        if words[0] not in INTERCEPTABLE:
            raise TestbedError("Unknown device")
        self.testbed.listen(self._heard)
        return ""

    def _heard(self, number: int, level: bool) -> None:
        if self._levels.get(number, False) is not level:
            self._levels[number] = level
            self._out.append(f"IRQ {'raise' if level else 'lower'} {number}")

    def _set_irq(self, words: list[str]) -> str:
        if words[0] not in INTERCEPTABLE or words[1] != "unnamed-gpio-in":
            raise TestbedError("Unknown device")
        self.testbed.set_input(number(words[2]), bool(number(words[3])))
        return ""

    @staticmethod
    def _module_load(words: list[str]) -> str:
        raise TestbedError(f"there is no module {words[0] + words[1]!r:.80}")


def number(word: str) -> int:
    """A number as C writes it, modulo 2^64. Raises TestbedError."""
    digits = word.removeprefix("-")
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdecimal()
    try:
        if "_" in word or len(word) > 32:
            raise ValueError
        value = int(digits, 8 if octal else 0)
    except ValueError:
        raise TestbedError(f"expected a number, not {word!r:.80}") from None
    return (-value if word[0] == "-" else value) & MASK


def _port(word: str) -> int:
    port = number(word)
    if port > 0xFFFF:
        raise TestbedError(f"expected a port up to 0xffff, not {port:#x}")
    return port


def _length(word: str) -> int:
    length = number(word)
    if length > MOST_BYTES:
        raise TestbedError(f"expected at most {MOST_BYTES} bytes in one access, not {length}")
    return length
