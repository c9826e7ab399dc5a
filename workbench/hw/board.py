"""The `pc` board: i440FX, PIIX3, PIIX4 power management and the PC's chips, wired.

An ISA interrupt line goes to the 8259 pair and to the I/O APIC pin of the same number, IRQ 0 to pin
2. PCI's PIRQ[A:D] are routed to ISA interrupts by PIIX3. INTR of the 8259s goes to LINT0 of the
local APIC, whose INTR is that of the processor.

`Board.post` leaves the machine as firmware would: interrupt routing, PM base, base address
registers, virtual wire mode. A board with a BIOS is left as reset leaves it, and has fw_cfg, shadow
RAM and the BIOS's debug console besides. Deliberately not modelled: DMA controllers, floppy,
parallel port, speaker, VGA.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from workbench.core.bus import Window
from workbench.core.config import BOOT_DEVICES, RESTART, MachineConfig, ide_places
from workbench.core.irq import IrqLine, SharedLine
from workbench.core.machine import Device, Machine
from workbench.hw import layout, pflash
from workbench.hw.debugcon import DebugCon
from workbench.hw.debugexit import DebugExit
from workbench.hw.decode import MovableWindow
from workbench.hw.fw_cfg import FwCfg
from workbench.hw.hpet import Hpet, LegacyGate
from workbench.hw.i440fx import I440fx
from workbench.hw.i8042 import I8042
from workbench.hw.i8254 import I8254
from workbench.hw.i8259 import I8259Pair
from workbench.hw.ioapic import PINS, Ioapic
from workbench.hw.lapic import DM_EXTINT, DM_NMI, LVT_LINT0, LVT_LINT1, SVR, Lapic
from workbench.hw.mc146818 import MC146818
from workbench.hw.pci.config import BAR, COMMAND, INTERRUPT_LINE, IOSE, MSE
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci_root import PciRoot
from workbench.hw.piix3 import PIRQRC, Piix3
from workbench.hw.piix4_pm import PMBA, PMCNTRL, PMREGMISC, SCI_EN, Piix4Pm
from workbench.hw.port61 import Port61
from workbench.hw.port80 import Port80
from workbench.hw.port92 import Port92
from workbench.hw.shadow import ShadowRam
from workbench.hw.uart16550 import Uart16550

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.net.port import Backend

__all__ = ["E820", "Board", "PortDevice", "build_board", "build_pc", "e820"]

ISA_IRQS: Final = 16
CHS_LIMIT_BYTES: Final = 1024 * 16 * 63 * 512
BIOS_SUBSYSTEM: Final = (0x1AF4, 0x1100)
"""By this subsystem of the host bridge a BIOS knows that the board has fw_cfg."""


class PortDevice(Device, Protocol):
    """A device with windows in port space."""

    def windows(self) -> tuple[Window, ...]:
        """The windows, at their fixed places."""
        ...


class E820:
    """Types of address ranges (ACPI 6.3, table 15-6)."""

    MEMORY, RESERVED, ACPI, NVS = 1, 2, 3, 4


def e820(config: MachineConfig) -> list[tuple[int, int, int]]:
    """The memory map as (base, bytes, type), ascending."""
    low_end = min(config.ram_bytes, layout.LOW_RAM_LIMIT)
    acpi = low_end - layout.ACPI_REGION_BYTES
    facs = low_end - layout.FACS_REGION_BYTES
    ranges = [
        (0, layout.EBDA_BASE, E820.MEMORY),
        (layout.EBDA_BASE, 0xA_0000 - layout.EBDA_BASE, E820.RESERVED),
        (layout.BIOS_AREA_BASE, 0x10_0000 - layout.BIOS_AREA_BASE, E820.RESERVED),
    ]
    if acpi >= 0x10_0000:  # else the tables lie in the BIOS area
        ranges += [
            (0x10_0000, acpi - 0x10_0000, E820.MEMORY),
            (acpi, facs - acpi, E820.ACPI),
            (facs, low_end - facs, E820.NVS),
        ]
    if config.ram_bytes > low_end:
        ranges.append((layout.HIGH_RAM_BASE, config.ram_bytes - low_end, E820.MEMORY))
    return [entry for entry in ranges if entry[1]]


class Board:
    """The parts of one machine and the wires between them."""

    RTC = MC146818

    def __init__(self, machine: Machine) -> None:
        """Build all parts and attach them to `machine`."""
        config = machine.config
        clock = machine.clock
        self.machine = machine
        self._isa = [SharedLine(f"IRQ{n}", self._isa_sink(n)) for n in range(ISA_IRQS)]
        self._pins = {n: SharedLine(f"GSI{n}", self._pin_sink(n)) for n in range(ISA_IRQS, PINS)}
        for shared in (*self._isa, *self._pins.values()):
            shared.out.watch = self._tell_line
            machine.lines[shared.name] = shared
        self.lapic = Lapic(
            clock,
            set_intr=machine.set_intr,
            set_nmi=machine.set_nmi,
            tsc_ps=self._tsc_ps,
        )
        self.ioapic = Ioapic(self.lapic.deliver)
        self.pic = I8259Pair(IrqLine("pic.INT", lambda level: self.lapic.set_lint(0, level)))
        self.lapic.eoi_broadcast = self.ioapic.eoi
        self.lapic.pic_acknowledge = self.pic.acknowledge

        gates = (LegacyGate(self.irq("pit", 0)), LegacyGate(self.irq("rtc", 8)))
        self.hpet = Hpet(
            clock, self.irq, legacy=(self.irq("hpet.t0", 0), self.irq("hpet.t1", 8)), gates=gates
        )
        self.pit = I8254(clock, gates[0])
        nvram = None if config.firmware is None else boot_bytes(config)
        self.rtc = self.RTC(clock, gates[1], config.rtc_epoch_s, config.ram_bytes, nvram)
        self.a20 = SharedLine("A20", machine.cpu.set_a20)

        self.pci = PciRoot(
            machine.pio,
            machine.mmio,
            memory_read=machine.memory.read,
            memory_write=machine.memory.write,
            pirq=self._pirq,
        )
        self.pci.msi = self._msi
        self.pci.memory_scatter = machine.memory.scatter
        self.pci.is_memory = partial(layout.is_ram, config.ram_bytes)
        self.pci.request_reset = machine.request_reset
        self.pci.trace_cfg = machine.trace_cfg
        self.pci.trace_dma = machine.trace_dma
        self.pci.trace_dma_spans = machine.trace_dma_spans
        self.pci.trace_line = self._tell_line
        has_bios = config.firmware is not None
        self.shadow = ShadowRam(machine.memory) if has_bios else None
        self.i440fx = I440fx(subsystem=BIOS_SUBSYSTEM if has_bios else None, shadow=self.shadow)
        self.piix3 = Piix3(self.irq)
        self.piix4_pm = Piix4Pm(
            clock,
            self.irq("sci", layout.SCI_IRQ),
            lambda: machine.request_shutdown(0, "ACPI S5"),
            no_smm=has_bios,
        )
        self._attach()

    # -- wires -----------------------------------------------------------------------------------

    def irq(self, name: str, number: int) -> IrqLine:
        """A new driver of ISA interrupt 0 to 15 or of I/O APIC pin 16 to 23."""
        shared = self._isa[number] if number < ISA_IRQS else self._pins[number]
        return shared.source(f"{name}.{shared.name}")

    def _tell_line(self, name: str, level: bool) -> None:
        machine = self.machine
        for observer in machine.observers:
            observer.on_irq_line(name, level, machine.clock.icount)

    def _isa_sink(self, number: int) -> Callable[[bool], None]:
        pin = layout.PIT_GSI if number == 0 else number

        def sink(level: bool) -> None:
            self.pic.set_irq(number, level)
            self.ioapic.set_pin(pin, level)

        return sink

    def _pirq(self, number: int, level: bool) -> None:
        self.piix3.set_pirq(number, level)

    def _msi(self, address: int, data: int) -> None:
        """A message is a write of a dword, to the interrupt controllers or wherever else the driver
        has it go (PCI 3.0, 6.8.1).
        """
        if address >> 20 == layout.LAPIC_BASE >> 20:
            self.lapic.msi(address, data)
        elif layout.is_ram(self.machine.config.ram_bytes, address, 4):
            self.machine.memory.write(address, data.to_bytes(4, "little"))

    def _pin_sink(self, pin: int) -> Callable[[bool], None]:
        return lambda level: self.ioapic.set_pin(pin, level)

    def _tsc_ps(self, tsc: int) -> int:
        return self.machine.tsc_ps(tsc)

    # -- parts -----------------------------------------------------------------------------------

    def _attach(self) -> None:
        machine = self.machine
        config = machine.config
        machine.irq = self.lapic
        machine.system.read_cr8 = self.lapic.read_cr8
        machine.system.write_cr8 = self.lapic.write_cr8
        machine.msr_handlers.update(self.lapic.msrs())
        page = Window.of(self.lapic, self.lapic.name, 0)
        self._lapic_page = MovableWindow(machine.mmio, page)
        self._x2apic_msrs = self.lapic.x2apic_msrs()
        self.lapic.on_apic_base = self._place_lapic
        self._place_lapic()

        for device in (self.pic, self.pit, self.rtc):
            self.add_isa(device)
        for n, name in enumerate(config.serial_ports):
            self.add_serial(name, layout.COM_PORTS[n], layout.COM_IRQS[n])
        self.i8042 = I8042(
            self.irq("i8042", 1), machine.request_reset, self.a20.source("i8042.a20"), name="i8042"
        )
        self.add_isa(self.i8042)
        machine.inputs.register("i8042", self.i8042.receive)
        self.add_isa(Port61(self.pit))
        self.add_isa(Port80())
        self.add_isa(Port92(machine.request_reset, self.a20.source("port92.a20")))
        self.add_isa(DebugExit(machine.request_shutdown))
        self.add_isa(DebugCon(lambda data: machine.console("debugcon", data)))

        machine.attach(self.lapic)
        machine.mmio.map(Window.of(self.ioapic, self.ioapic.name, layout.IOAPIC_BASE))
        machine.attach(self.ioapic)
        machine.mmio.map(Window.of(self.hpet, self.hpet.name, layout.HPET_BASE))
        machine.attach(self.hpet)

        for window in self.pci.windows(self.i440fx.name):
            machine.pio.map(window)
        machine.attach(self.pci)
        self.add_pci(self.i440fx, 0)
        self.add_pci(self.piix3, 1)
        self.add_pci(self.piix4_pm, 1, 3)
        machine.inputs.register("acpi", self.piix4_pm.handle_input)
        if self.shadow is not None:
            self._attach_bios_parts(self.shadow)

    def _attach_bios_parts(self, shadow: ShadowRam) -> None:
        """What only firmware uses; `workbench.firmware.bios` fills them."""
        machine = self.machine
        machine.mmio.map(shadow.window())
        machine.attach(shadow)
        last = max(layout.HIGH_RAM_BASE, machine.config.ram_bytes + (1 << 30))
        memory = machine.memory
        self.add_isa(FwCfg(memory.read, memory.write, machine.trace_dma, last))
        debug = DebugCon(
            lambda data: machine.console("bios", data), layout.PORT_BIOS_DEBUG, "bios-debugcon"
        )
        self.add_isa(debug)

    def _place_lapic(self) -> None:
        """Page and MSRs of the local APIC follow IA32_APIC_BASE."""
        self._lapic_page.place(self.lapic.window_base)
        handlers = self.machine.msr_handlers
        if self.lapic.x2apic:
            handlers.update(self._x2apic_msrs)
        else:
            for msr in self._x2apic_msrs:
                handlers.pop(msr, None)

    def add_isa(self, device: PortDevice) -> None:
        """Attach a device and map its windows into port space; a single window is named like it."""
        windows = device.windows()
        if len(windows) == 1:
            windows[0].name = device.name
        for window in windows:
            self.machine.pio.map(window)
        self.machine.attach(device)

    def add_serial(self, name: str, port: int, irq: int) -> None:
        """Attach a serial port; target `name` of the inputs feeds it."""
        uart = Uart16550(
            name, port, self.irq(name, irq), lambda data: self.machine.console(name, data)
        )
        self.add_isa(uart)
        self.machine.inputs.register(name, uart.receive)

    def add_pci(self, function: PciFunction[Any], device: int, number: int = 0) -> None:
        """Put a function into a slot and attach it to the machine."""
        self.pci.add(function, device, number)
        self.machine.attach(function)

    # -- firmware's part -------------------------------------------------------------------------

    def boot_again(self) -> None:
        """After a reset: what was to be booted once is over. A BIOS does the rest."""
        firmware = self.machine.config.firmware
        if firmware is not None and firmware.once:
            for at, value in boot_bytes(self.machine.config, again=True).items():
                self.rtc.state.cmos[at] = value

    def post(self) -> None:
        """Leave everything as firmware does before it starts the loader; touches no bus."""
        for pirq, irq in enumerate(layout.PIRQ_IRQS):
            self.piix3.write(PIRQRC[pirq].offset, 1, irq)
        self.pic.slave.set_elcr(sum(1 << irq - 8 for irq in layout.LEVEL_IRQS if irq >= 8))
        for chip, base, cascade in ((self.pic.master, 0x08, 0x04), (self.pic.slave, 0x70, 0x02)):
            for offset, value in ((0, 0x11), (1, base), (1, cascade), (1, 0x01), (1, 0xFF)):
                chip.write(offset, 1, value)
        self.piix4_pm.write(PMBA.offset, 4, layout.PM_BASE)
        self.piix4_pm.write(PMREGMISC.offset, 1, 1)
        self.piix4_pm.io.write(PMCNTRL.offset, 2, SCI_EN)
        self._place_bars()
        self.lapic.write(SVR.offset, 4, 0x1FF)
        self.lapic.write(LVT_LINT0.offset, 4, DM_EXTINT << 8)
        self.lapic.write(LVT_LINT1.offset, 4, DM_NMI << 8)

    def _place_bars(self) -> None:
        """Base address registers, each aligned to its size, and INTERRUPT_LINE."""
        next_port, next_gpa = layout.PORT_PCI_IO_BASE, layout.PCI_BARS_BASE
        for address, function in self.pci.functions.items():
            for bar in function.BARS:
                at = next_port if bar.io else next_gpa
                at = at + bar.size - 1 & -bar.size
                function.write(BAR[bar.index].offset, 4, at)
                if bar.io:
                    next_port = at + bar.size
                else:
                    next_gpa = at + bar.size
            pin = function.map["INTERRUPT_PIN"].reset
            if pin:
                pirq = (address.device + pin - 2) % len(layout.PIRQ_IRQS)
                function.write(INTERRUPT_LINE.offset, 1, layout.PIRQ_IRQS[pirq])
            if function.BARS:
                function.write(COMMAND.offset, 2, IOSE | MSE)
            function.post()
        self.piix4_pm.write(INTERRUPT_LINE.offset, 1, layout.SCI_IRQ)


def build_board(config: MachineConfig) -> Board:
    """A machine with all parts of the board, in the state that reset leaves."""
    return Board(Machine(config))


def build_pc(
    config: MachineConfig,
    images: Mapping[str, Image] | None = None,
    networks: Mapping[str, Backend] | None = None,
    write_through: Collection[str] = (),
) -> Machine:
    """A machine with all parts of the board, in the state that firmware leaves.

    `images` are behind the drives of `config`, by name, those in `write_through` to be written;
    `networks` behind its NICs.  A replay gives none: what a run read from them is in its trace.
    """
    board = build_board(config)
    if config.drives or config.nics or config.devices:
        from workbench.hw.peripherals import attach

        attach(board, images or {}, networks or {}, write_through)
    for part in pflash.attach(board.machine):
        if part.name in write_through and images is not None:
            part.store = images[part.name].write
    if config.firmware is None:
        board.post()
    if config.at_reset == RESTART:
        board.machine.restart = board.post if config.firmware is None else board.boot_again
    return board.machine


def boot_digits(order: str) -> list[int]:
    """Three digits of the CMOS RAM for up to three devices to boot from."""
    digits = [BOOT_DEVICES.index(letter) + 1 for letter in order]
    return digits + [0] * (3 - len(digits))


def boot_bytes(config: MachineConfig, *, again: bool = False) -> dict[int, int]:
    """The bytes of CMOS RAM by which a PC BIOS knows from where to boot (`again`: after a reset):
    0x38 and 0x3D have a digit for each device, 0x39 says which IDE disks are translated by LBA.
    """
    firmware = config.firmware
    assert firmware is not None
    order = firmware.boot_order if again else firmware.once or firmware.boot_order
    digits = boot_digits(order)
    translation = 0
    for n, drive in ide_places(config.drives).items():
        translation |= (drive.size_bytes > CHS_LIMIT_BYTES) << 2 * n
    return {0x38: digits[2] << 4 | 1, 0x39: translation, 0x3D: digits[1] << 4 | digits[0]}
