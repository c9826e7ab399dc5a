"""The `monitor` commands: what gdb has no words for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from workbench.core.bus import Bus, Window
from workbench.core.regs import Reg
from workbench.gdbstub.memory import physical
from workbench.gdbstub.target import Target
from workbench.trace.timeline import DeviceWatch, DmaWatch, Timeline

HELP = """\
info devices                       the devices and where they are
info registers DEVICE              a device's registers, as they are held
when                               the position in the recording
seek COUNT|start|end|access N      go to an instruction count or to access N of the log
checkpoint                         the checkpoints
log [N]                            the last N accesses before this position (default: 10)
watch DEVICE.REGISTER [read|write|both] [mask N] [value N]
                                   stop at accesses to a device register
watch dma ADDRESS [BYTES]          stop when a device writes to guest-physical addresses
unwatch                            forget these
writer ADDRESS [BYTES]             who wrote there last: processor or device
x ADDRESS [BYTES]                  guest-physical memory
drop                               leave a diversion (after registers or memory were written)
help                               this text
After seek and drop gdb has to look again: 'workbench gdb' does that, else say
maintenance flush register-cache
"""


class _Wrong(Exception):
    """A command that cannot be done; the text says why."""


class Monitor:
    """Runs one command line, gives its text."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.note = ""
        """Something that the user should know; `when` says it."""
        self._commands: dict[str, Callable[[list[str]], str]] = {
            "help": lambda args: HELP,
            "info": self._info,
            "when": self._when,
            "seek": self._seek,
            "checkpoint": self._checkpoint,
            "log": self._log,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "x": self._memory,
            "writer": self._writer,
            "drop": self._drop,
        }

    def run(self, line: str) -> str:
        """Run a command; errors are text too."""
        try:
            words = shlex.split(line) or ["help"]
            command = self._commands.get(words[0])
            if command is None:
                raise _Wrong(f"no command {words[0]!r}; try: monitor help")
            return command(words[1:]).rstrip("\n") + "\n"
        except (_Wrong, ValueError) as error:
            return f"{error}\n"

    # Devices.

    def _info(self, args: list[str]) -> str:
        match args:
            case ["devices"]:
                return "\n".join(
                    f"{w.name:<16} {bus:<5} {w.base:#x}-{w.base + w.size - 1:#x}  {w.device}"
                    for bus, w in self._windows()
                )
            case ["registers", name]:
                return "\n".join(self._registers(name))
        raise _Wrong("expected: info devices, or info registers DEVICE")

    def _windows(self) -> Iterator[tuple[str, Window]]:
        machine = self._target.machine
        for name, bus in (("pio", machine.pio), ("mmio", machine.mmio)):
            yield from ((name, window) for window in _windows_of(bus))

    def _registers(self, name: str) -> Iterator[str]:
        """Maps with the device's state: reading the registers could change the device."""
        device = self._target.machine.devices.get(name)
        if device is not None:
            for key, value in device.save().items():
                if isinstance(value, dict):
                    for inner, held in value.items():
                        yield f"{inner:<24} {_shown(held)}"
                else:
                    yield f"{key:<24} {_shown(value)}"
            return
        found = [w for _, w in self._windows() if w.name == name]
        if not found:
            known = sorted({*self._target.machine.devices, *(w.name for _, w in self._windows())})
            raise _Wrong(f"no device {name!r}; there are: {', '.join(known)}")
        for window in found:
            for reg in _regs(window):
                yield f"{window.base + reg.offset:#06x} {reg.size} {reg.name}"

    def _watch(self, args: list[str]) -> str:
        timeline = self._timeline()
        if not args:
            return "\n".join(w.text for w in timeline.device_watches) or "nothing is watched"
        if args[0] == "dma":
            if not 2 <= len(args) <= 3:
                raise _Wrong("expected: watch dma ADDRESS [BYTES]")
            length = int(args[2], 0) if len(args) == 3 else 1
            transfer = DmaWatch(int(args[1], 0), max(length, 1), " ".join(args))
            timeline.set_device_watches([*timeline.device_watches, transfer])
            return f"watching {transfer.text}"
        device, dot, name = args[0].partition(".")
        window = next((w for _, w in self._windows() if w.name == device), None)
        if window is None or not dot:
            raise _Wrong(f"expected DEVICE.REGISTER, not {args[0]!r}; see: info devices")
        reg = next((r for r in _regs(window) if r.name.lower() == name.lower()), None)
        if reg is None:
            names = ", ".join(r.name for r in _regs(window))
            raise _Wrong(f"{device} has no register {name!r}; there are: {names}")
        reads = writes = True
        mask, value = (1 << (8 * reg.size)) - 1, None
        words = iter(args[1:])
        for word in words:
            match word:
                case "read":
                    writes = False
                case "write":
                    reads = False
                case "both":
                    pass
                case "mask":
                    mask = int(next(words, ""), 0)
                case "value":
                    value = int(next(words, ""), 0)
                case _:
                    raise _Wrong(f"expected read, write, both, mask N or value N, not {word!r}")
        explicit = "mask" in args or value is not None
        watch = DeviceWatch(
            device, reg.offset, reg.size, reads, writes,
            mask, value if explicit else None, " ".join(args),
        )  # fmt: skip
        if not explicit:
            watch = DeviceWatch(device, reg.offset, reg.size, reads, writes, 0, 0, " ".join(args))
        timeline.set_device_watches([*timeline.device_watches, watch])
        return f"watching {watch.text}"

    def _unwatch(self, args: list[str]) -> str:
        timeline = self._timeline()
        count = len(timeline.device_watches)
        timeline.set_device_watches([])
        return f"{count} forgotten"

    # Time.

    def _timeline(self) -> Timeline:
        timeline = self._target.timeline
        if timeline is None:
            raise _Wrong("this needs a recording: the machine runs live")
        return timeline

    def _when(self, args: list[str]) -> str:
        machine = self._target.machine
        text = f"instruction {machine.clock.icount:,}, {machine.clock.now_ps / 1e12:.9f} s"
        timeline = self._target.timeline
        if timeline is not None:
            text += f" of {timeline.end_icount:,}"
            if timeline.diverted is not None:
                text += f"; a diversion since {timeline.diverted:,}"
        if self.note:
            text += f"\n{self.note}"
        return text

    def _seek(self, args: list[str]) -> str:
        timeline = self._timeline()
        match args:
            case ["start"]:
                icount = 0
            case ["end"]:
                icount = timeline.end_icount
            case ["access", number]:
                icount = _access_icount(timeline, int(number, 0))
            case [number]:
                icount = int(number.replace(",", ""), 0)
            case _:
                raise _Wrong("expected: seek COUNT, seek start, seek end or seek access N")
        if not 0 <= icount <= timeline.end_icount:
            raise _Wrong(f"expected 0 to {timeline.end_icount:,}, not {icount:,}")
        timeline.seek(icount)
        return self._when([])

    def _checkpoint(self, args: list[str]) -> str:
        return "\n".join(f"{icount:,}" for icount in self._timeline().checkpoints)

    def _drop(self, args: list[str]) -> str:
        self._timeline().drop_diversion()
        return self._when([])

    def _log(self, args: list[str]) -> str:
        count = int(args[0], 0) if args else 10
        return "\n".join(_log_lines(self._timeline(), min(max(count, 1), 1000)))

    def _writer(self, args: list[str]) -> str:
        if not 1 <= len(args) <= 2:
            raise _Wrong("expected: writer ADDRESS [BYTES]")
        timeline = self._timeline()
        address, length = int(args[0], 0), int(args[1], 0) if len(args) == 2 else 1
        if not 0 < length <= 4096:
            raise _Wrong(f"expected 1 to 4096 bytes, not {length}")
        found: list[tuple[int, str]] = []
        gpa = physical(self._target.machine.cpu, address)
        if gpa is not None:
            found += _dma_writes(timeline, gpa, length)
        write = timeline.last_write(address, length)
        if write is not None:
            found.append((write[0], f"the processor at PC {write[1]:#x}"))
        if not found:
            return "nobody, since the start"
        icount, who = max(found)
        return f"{who}, instruction {icount:,}"

    def _memory(self, args: list[str]) -> str:
        if not 1 <= len(args) <= 2:
            raise _Wrong("expected: x ADDRESS [BYTES]")
        address, count = int(args[0], 0), int(args[1], 0) if len(args) == 2 else 64
        data = self._target.machine.memory.read(address, min(max(count, 1), 4096))
        return "\n".join(
            f"{address + at:012x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)
        )


def _windows_of(bus: Bus) -> list[Window]:
    return sorted(bus.windows, key=lambda w: w.base)


def _regs(window: Window) -> tuple[Reg, ...]:
    return tuple(window.regmap.regs) if window.regmap is not None else ()


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{value!s:.200}"
    return f"{value:#x}"


def _dma_writes(timeline: Timeline, gpa: int, length: int) -> list[tuple[int, str]]:
    """The last transfer of a device into a physical range before the position, if there is one."""
    last: list[tuple[int, str]] = []
    names = ("icount", "device", "gpa", "length", "write")
    for batch in timeline.trace.batches("dma", names):
        columns = [batch[name].to_pylist() for name in names]
        for icount, device, start, count, write in zip(*columns, strict=True):
            if icount >= timeline.icount:
                return last
            if write and start < gpa + length and gpa < start + count:
                last = [(icount, f"{device} by DMA")]
    return last


def _access_icount(timeline: Timeline, number: int) -> int:
    for batch in timeline.trace.batches("accesses", ("icount",)):
        if number < batch.num_rows:
            if number < 0:
                break
            return int(batch["icount"][number].as_py())
        number -= batch.num_rows
    raise _Wrong(f"the log has {timeline.trace.rows('accesses'):,} accesses")


def _log_lines(timeline: Timeline, count: int) -> list[str]:
    names = ("icount", "pc", "device", "offset", "size", "write", "value", "kind")
    lines: list[str] = []
    number = 0
    for batch in timeline.trace.batches("accesses", names):
        columns = [batch[name].to_pylist() for name in names]
        for icount, pc, device, offset, size, write, value, kind in zip(*columns, strict=True):
            if icount >= timeline.icount:
                return lines[-count:]
            arrow = "<-" if write else "->"
            where = f"{device or kind}+{offset:#x}"
            lines.append(
                f"{number:>8} {icount:>14,} {pc:#018x} {where:<20} {size} {arrow} {value:#x}"
            )
            number += 1
        del lines[:-count]
    return lines[-count:]
