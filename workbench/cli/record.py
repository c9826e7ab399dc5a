"""`workbench record`: boot a guest and record it."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import actions, boot, devices, engine, flash, gdb, terminal, text
from workbench.cli.options import (
    CONSOLE_DEVICE,
    add_serial,
    more_serial_outputs,
    rtc_epoch_s,
    serial_output,
)
from workbench.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_LIMIT,
    EXIT_OK,
    InputFileError,
    UsageError,
    os_error_text,
)

if TYPE_CHECKING:
    from workbench.trace.provenance import DiskHasher
    from workbench.trace.session import Outcome, Recording

EXAMPLES = """\
examples:
  workbench record --kernel vmlinuz --initrd initrd.gz --append console=ttyS0 -m 256 -o boot.wbt
  workbench record -kernel guest.elf -serial file:out.txt --timeout 30 -o guest.wbt
  printf 'ls\\n' | workbench record --kernel vmlinuz --initrd initrd.gz --serial stdio -o ls.wbt
  workbench record --kernel vmlinuz --initrd drivers.gz --cdrom a.iso --cdrom b.iso \\
      --do "5s eject" --do "6s insert" -o cd.wbt
  workbench record --bios seabios --drive file=disk.img,if=ide --boot order=c,menu=on -o pc.wbt
  workbench record ... --drive file=a.qcow2,if=none,id=d \\
      --device virtio-blk-pci,drive=d,packed=on,num-queues=4 --device virtio-rng

keys on a terminal: Ctrl-C or Ctrl-A X ends the recording, Ctrl-A C sends Ctrl-C to the guest,
Ctrl-A E ejects the CD, I inserts the next one, L pulls the network cable out or puts it in, P
presses the power button.
The trace is complete and valid however the recording ends; what a killed recorder leaves is too.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "record", help="boot a guest and record it", description=__doc__, epilog=EXAMPLES
    )
    add = parser.add_argument
    add("--kernel", "-kernel", metavar="FILE", help="Linux bzImage or multiboot ELF")
    add("--initrd", "-initrd", metavar="FILE", help="initial RAM disk")
    add("--append", "-append", metavar="TEXT", default="", help="kernel command line")
    add("-m", "--memory", metavar="SIZE", default="256",
        help="guest memory: MiB, or with K, M, G (default: 256)")  # fmt: skip
    add("-o", "--output", metavar="FILE", default="record.wbt",
        help="the trace (default: record.wbt)")  # fmt: skip
    add_serial(parser, "where a serial port goes; again for a second to fourth one")
    boot.add_boot(parser)
    devices.add_devices(parser)
    add("--do", metavar="'TIME ACTION'", action="append", default=[],
        help=f"at a guest time such as 2.5s: {actions.EXPECTED} (may be repeated)")  # fmt: skip
    add("--no-embed", action="store_true", help="keep kernel, initrd and ROMs out of the trace")
    add("--ps-per-insn", metavar="N", type=int, default=1000,
        help="guest picoseconds an instruction takes (default: 1000)")  # fmt: skip
    add("--seed", metavar="N", type=int, help="seed of RDRAND (default: random, recorded)")
    add("--rtc", "-rtc", metavar="TIME",
        help="date of the clock at start, ISO or seconds since 1970 (default: now)")  # fmt: skip
    add("--debug-exit", action="store_true",
        help="exit with (value << 1 | 1) after the guest wrote value to port 0xf4")  # fmt: skip
    add("--max-insns", metavar="N", help="end after N instructions (suffixes k, M, G)")
    add("--timeout", metavar="SECONDS", type=float, help="end after so much real time")
    add("--digest-every", metavar="N", help="digest of the whole state every N instructions")
    add("--gdb", "-gdb", metavar="WHERE",
        help="let gdb connect at :PORT, HOST:PORT or unix:PATH")  # fmt: skip
    add("--wait", action="store_true", help="with --gdb: wait for gdb before the first instruction")
    add("--memory-budget", metavar="SIZE",
        help="with --gdb: memory for the states that lead back (default: "
        f"{text.CHECKPOINT_BUDGET})")  # fmt: skip
    add("--no-reboot", "-no-reboot", action="store_true",
        help="a reset by the guest ends the recording; else the guest starts again")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no closing summary")
    add("-nographic", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def machine_config(args: argparse.Namespace) -> dict[str, Any]:
    """Make the JSON of the machine's configuration from the options."""
    if not 1 <= args.ps_per_insn <= 1_000_000:
        raise UsageError(f"expected --ps-per-insn from 1 to 1000000, not {args.ps_per_insn}")
    seed = secrets.randbits(63) if args.seed is None else args.seed
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"expected --seed from 0 to 2**64 - 1, not {seed}")
    ram_bytes = text.parse_size(args.memory)
    epoch_s = rtc_epoch_s(args.rtc)
    from workbench.core.config import END, RESTART, MachineConfig

    try:
        config = MachineConfig(
            ram_bytes=ram_bytes,
            ps_per_insn=args.ps_per_insn,
            rtc_epoch_s=epoch_s,
            seed=seed,
            at_reset=END if args.no_reboot else RESTART,
        )
    except ValueError as error:
        raise UsageError(f"this machine cannot be built: {error}") from None
    return config.to_json()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recording that can begin, what it is connected to, and where its console goes."""

    recording: Recording
    attached: devices.Attachments
    acts: actions.Actions
    output: int | None
    more: Mapping[str, int]


@contextlib.contextmanager
def prepared(args: argparse.Namespace) -> Iterator[Prepared]:
    """Make a recording as the options say; it has not begun."""
    from workbench.trace.guest import Guest
    from workbench.trace.session import Limits, Recording

    limits = Limits(
        icount=None if args.max_insns is None else text.parse_count(args.max_insns),
        wall_s=_timeout(args.timeout),
        digest_every=None if args.digest_every is None else text.parse_count(args.digest_every),
    )
    flashes = flash.apply(args)
    firmware = {**boot.firmware_config(args), **flash.config(flashes)}
    _refuse_overwriting(args.output, [args.kernel, args.initrd])
    output = serial_output(args.serial)
    with contextlib.ExitStack() as stack, devices.opened(args) as attached:
        roms = boot.guest_roms(args, attached.roms, attached.nics) | flash.roms(flashes)
        _refuse_overwriting(args.output, [*roms.values()])
        guest = Guest.from_files(args.kernel, args.initrd, args.append, roms)
        config = {**machine_config(args), **attached.config(), **firmware}
        more = more_serial_outputs(args.more_serial)
        more |= _virtio_consoles(attached) | boot.debug_outputs(args)
        acts = actions.Actions(config)
        plan = _plan(args.do, acts)
        if args.more_serial:
            config["serial_ports"] = [f"com{n + 1}" for n in range(len(args.more_serial) + 1)]
        disks = _disk_hasher(attached)
        attached.images |= flash.stores(flashes, stack)
        attached.write_through |= attached.images.keys() & flash.NAMES
        engine.prepare()
        recording = Recording(
            args.output,
            config,
            guest,
            options=_options(args),
            embed=not args.no_embed,
            limits=limits,
            build=attached.builder(),
            disks=disks,
        )
        recording.interactive = bool(attached.networks)  # the other end lives in real time
        for scheduled in plan:
            recording.machine.inputs.schedule(*scheduled)
        yield Prepared(recording, attached, acts, output, more)


def run(args: argparse.Namespace) -> int:
    """Record as the options say."""
    from workbench.cli.text import complain
    from workbench.net.thread import failure_of

    budget_bytes = text.parse_size(args.memory_budget or text.CHECKPOINT_BUDGET)
    with (
        gdb.listening(args.gdb, args.wait, args.memory_budget) as listener,
        prepared(args) as it,
        gdb.held(it.recording, listener, args.wait, budget_bytes),
    ):
        typed = next((n for n, to in it.attached.consoles.items() if to == "stdio"), "")
        outcome = record_on_terminal(
            it.recording,
            it.output,
            read_stdin=bool(typed) or _reads_stdin(args.serial),
            more=it.more,
            typed_to=typed or CONSOLE_DEVICE,
            acts=it.acts,
        )
        for name, network in it.attached.networks.items():
            if why := failure_of(network):
                complain(f"{name} lost its network: {why}")
    return finish(args, it.recording, outcome)


def record_on_terminal(
    recording: Recording,
    output: int | None,
    read_stdin: bool,
    more: Mapping[str, int] | None = None,
    typed_to: str = CONSOLE_DEVICE,
    acts: actions.Actions | None = None,
) -> Outcome:
    """Run a recording with its console on `output` and, if asked, input from stdin to `typed_to`.

    `more` has the file descriptors of further consoles by device; `acts` is what keys can do.
    """
    from workbench.cli.text import complain

    console = None
    if output is not None:
        console = terminal.ConsoleOutput(CONSOLE_DEVICE, output, recording.interrupt)
        recording.recorder.console_sink = console.sink
    others = [
        terminal.ConsoleOutput(device, fd, recording.interrupt)
        for device, fd in (more or {}).items()
    ]
    if others:
        recording.recorder.console_sink = _to_all([c for c in (console, *others) if c is not None])
    restore = terminal.keep_mode()

    def last_resort() -> None:
        recording.recorder.flush()
        restore()
        complain(
            "the guest's machine code, or a disk that it waits for, does not come back; "
            "the trace is kept as if cut"
        )
        os._exit(EXIT_INTERRUPTED)

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            terminal.ending_signals(recording.interrupt, recording.stopped, last_resort)
        )
        if read_stdin:
            raw = stack.enter_context(terminal.raw_terminal())
            post = _poster(recording, raw, typed_to, acts)
            stack.enter_context(terminal.InputThread(post))
            recording.interactive = True
        outcome = recording.run()
    if console is not None and not console.ends_line and os.isatty(1):
        console.write(b"\r\n")
    if console is not None and console.failure and output != 1:
        raise InputFileError(f"the serial file cannot be written: {console.failure}")
    return outcome


def _disk_hasher(attached: devices.Attachments) -> DiskHasher | None:
    from workbench.trace.provenance import DiskFacts, DiskHasher

    found = [
        DiskFacts(name, image.name, image.format, image.size_bytes)
        for name, image in attached.images.items()
    ]
    return DiskHasher(found, attached.images.keys() - attached.write_through) if found else None


def _to_all(consoles: list[terminal.ConsoleOutput]) -> Callable[[str, bytes], None]:
    def sink(device: str, data: bytes) -> None:
        for console in consoles:
            console.sink(device, data)

    return sink


def finish(args: argparse.Namespace, recording: Recording, outcome: Outcome) -> int:
    """Print the summary and choose the exit status."""
    from workbench.cli.summary import print_recording
    from workbench.cli.text import complain

    if not args.quiet:
        print_recording(recording.writer.path, outcome)
    if recording.machine.undefined:
        for code, disassembly, times in recording.machine.undefined_opcodes():
            complain(f"unknown to this processor, {times:,} times: {code} ({disassembly})")
    if outcome.stop == "interrupted":
        return EXIT_INTERRUPTED
    if outcome.stop == "limit":
        complain(f"{outcome.reason}; the trace is complete up to there")
        return EXIT_LIMIT
    if outcome.stop == "shutdown":
        return outcome.code & 0xFF if args.debug_exit else EXIT_OK
    if outcome.stop == "reset":
        return EXIT_OK
    why = f": {outcome.reason}" if outcome.reason else ""
    complain(f"the guest came to a bad end, {outcome.stop}{why}; the trace is kept")
    return EXIT_BAD_INPUT


def _poster(
    recording: Recording, raw: bool, device: str, acts: actions.Actions | None
) -> Callable[[bytes], None]:
    inputs = recording.machine.inputs
    if not raw:
        return lambda data: inputs.post(device, "rx", data)

    def act(key: str) -> bool:
        if acts is None or key not in actions.KEYS:
            return False
        try:
            done = acts.do(actions.KEYS[key], inputs.post)
        except UsageError as error:
            done = str(error)
        _tell(f"\r\n[{done}]\r\n".encode())
        return True

    escape = terminal.EscapeFilter(recording.interrupt, _tell, act)

    def post(data: bytes) -> None:
        typed = escape.feed(data)
        if typed:
            inputs.post(device, "rx", typed)

    return post


def _plan(wishes: list[str], acts: actions.Actions) -> list[tuple[int, str, str, bytes]]:
    """The inputs of `--do`, in order of time."""
    timed = []
    for wish in wishes:
        time, _, action = wish.strip().partition(" ")
        timed.append((actions.parse_time(time), action))
    out: list[tuple[int, str, str, bytes]] = []
    for time_ps, action in sorted(timed, key=lambda entry: entry[0]):
        acts.do(action, lambda *what, at=time_ps: out.append((at, *what)))
    return out


def _virtio_consoles(attached: devices.Attachments) -> dict[str, int]:
    """File descriptors of virtio consoles, by device."""
    outputs = {name: serial_output(to) for name, to in attached.consoles.items()}
    return {name: fd for name, fd in outputs.items() if fd is not None}


def _tell(data: bytes) -> None:
    os.write(2, data)


def _reads_stdin(serial: str | None) -> bool:
    if serial == "stdio":
        return True
    try:
        return serial is None and sys.stdin is not None and sys.stdin.isatty()
    except ValueError:
        return False


def _timeout(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < 1e9:
        raise UsageError(f"expected --timeout of more than 0 seconds, not {seconds:g}")
    return seconds


def _options(args: argparse.Namespace) -> dict[str, Any]:
    skipped = (
        "gdb", "wait", "memory_budget", "run", "command", "debug", "nographic", "no_reboot",
        "quiet",
    )  # fmt: skip
    return {k: v for k, v in vars(args).items() if k not in skipped and v not in (None, False)}


def _refuse_overwriting(output: str, inputs: list[str | None]) -> None:
    for path in inputs:
        if path is None:
            continue
        try:
            same = Path(output).exists() and Path(output).samefile(path)
        except OSError as error:
            raise InputFileError(f"{path}: {os_error_text(error)}") from None
        if same:
            raise UsageError(f"the trace would overwrite {path}")
