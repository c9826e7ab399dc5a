# The embedded default guest: a multiboot 1 program that touches most chips of a PC and tells what
# it saw on COM1. Built by build.py into demo.elf, which is shipped; runs in other PCs, too.
#
# It needs no memory besides its own image and stack, and leaves by the debug exit (port 0xf4,
# value 0), else by ACPI S5, else it halts.

        .intel_syntax noprefix

        # Ports, by the datasheets of the chips.
        .set COM1, 0x3f8                # 16550: THR +0, IER +1, FCR +2, LCR +3, MCR +4, LSR +5
        .set LSR_THRE, 0x20
        .set PIC1, 0x20                 # 8259A: ICW1/OCW2 +0, ICW2-4/OCW1 +1
        .set PIC2, 0xa0
        .set PIT_COUNTER0, 0x40         # 8254
        .set PIT_CONTROL, 0x43
        .set RTC_INDEX, 0x70            # MC146818
        .set RTC_DATA, 0x71
        .set KBC_DATA, 0x60             # i8042
        .set KBC_STATUS, 0x64
        .set PCI_ADDRESS, 0xcf8         # CONFADD, CONFDATA of the host bridge
        .set PCI_DATA, 0xcfc
        .set DEBUG_EXIT, 0xf4

        .set LAPIC, 0xfee00000
        .set HPET, 0xfed00000

        .set PIT_HZ, 1193182
        .set TICK_HZ, 100
        .set TICKS, 20
        .set TIMER_VECTOR, 0x20
        .set CHECK_BYTES, 0x100000
        .set CHECK_PASSES, 4

        .set CODE64, 8
        .set DATA, 16

# ---------------------------------------------------------------- multiboot header and entry

        .section .text
        .set MB_FLAGS, 0x00000003       # page-aligned modules, memory information
        .balign 4
multiboot_header:
        .long 0x1badb002, MB_FLAGS, -(0x1badb002 + MB_FLAGS)

        .code32
        .globl start
start:  # 32-bit protected mode, paging off, eax = 0x2badb002, ebx = boot information
        cli
        cld
        mov esp, offset stack_top

        # Page tables: 4 GiB mapped to themselves in 2 MiB pages.
        mov edi, offset pml4
        mov dword ptr [edi], offset pdpt + 3
        mov edi, offset pdpt
        mov eax, offset directories + 3
        mov ecx, 4
1:      mov [edi], eax
        add edi, 8
        add eax, 0x1000
        dec ecx
        jnz 1b
        mov edi, offset directories
        mov eax, 0x83                   # present, writable, 2 MiB
        mov ecx, 4 * 512
1:      mov [edi], eax
        add edi, 8
        add eax, 0x200000
        dec ecx
        jnz 1b

        # Long mode (SDM vol. 3, 9.8.5).
        mov eax, cr4
        or eax, 1 << 5                  # CR4.PAE
        mov cr4, eax
        mov eax, offset pml4
        mov cr3, eax
        mov ecx, 0xc0000080             # IA32_EFER
        rdmsr
        or eax, 1 << 8                  # LME
        wrmsr
        mov eax, cr0
        or eax, 1 << 31 | 1 << 0        # PG, PE
        mov cr0, eax
        lgdt [gdt_pointer]
        .att_syntax
        ljmp $CODE64, $start64
        .intel_syntax noprefix

# ---------------------------------------------------------------- 64-bit part

        .code64
start64:
        mov eax, DATA
        mov ds, eax
        mov es, eax
        mov ss, eax
        call idt_setup
        call uart_setup
        lea rsi, [rip + text_hello]
        call puts
        call show_cpu
        call show_rtc
        call show_timer
        call show_lapic
        call show_hpet
        call show_kbc
        call show_acpi
        call show_pci
        call show_checksum
        lea rsi, [rip + text_done]
        call puts
        xor eax, eax
        jmp leave_guest

# al = value for the debug exit. Ends the run.
leave_guest:
        mov edx, DEBUG_EXIT
        out dx, al
        mov edx, [rip + pm1a_control]
        test edx, edx
        jz 1f
        mov eax, 1 << 13                # PM1_CNT.SLP_EN, SLP_TYP 0
        out dx, ax
1:      cli
        hlt
        jmp 1b

# ---------------------------------------------------------------- the chips, one by one

# CPUID: the brand string, else the vendor.
show_cpu:
        lea rsi, [rip + text_cpu]
        call puts
        mov eax, 0x80000000
        cpuid
        cmp eax, 0x80000004
        jb 2f
        lea rdi, [rip + buffer]
        mov r8d, 0x80000002
1:      mov eax, r8d
        cpuid
        mov [rdi], eax
        mov [rdi + 4], ebx
        mov [rdi + 8], ecx
        mov [rdi + 12], edx
        add rdi, 16
        inc r8d
        cmp r8d, 0x80000004
        jbe 1b
        jmp 3f
2:      xor eax, eax
        cpuid
        lea rdi, [rip + buffer]
        mov [rdi], ebx
        mov [rdi + 4], edx
        mov [rdi + 8], ecx
        add rdi, 12
3:      mov byte ptr [rdi], 0
        lea rsi, [rip + buffer]
        call puts
        jmp newline

# MC146818: date and time, read when no update is in progress, in the format of register B.
show_rtc:
        lea rsi, [rip + text_rtc]
        call puts
1:      mov al, 0x0a
        call rtc_read
        test al, 0x80                   # UIP
        jnz 1b
        mov al, 0x32
        call rtc_number
        call put2
        mov al, 9
        call rtc_number
        call put2
        mov bl, '-'
        mov al, 8
        call rtc_part
        mov al, 7
        call rtc_part
        mov bl, ' '
        mov al, 4
        call rtc_part
        mov bl, ':'
        mov al, 2
        call rtc_part
        mov al, 0
        call rtc_part
        jmp newline

# bl = separator to print first, al = register.
rtc_part:
        push rax
        mov al, bl
        call putc
        pop rax
        call rtc_number
        jmp put2

# al = register; returns its value in al.
rtc_read:
        out RTC_INDEX, al
        in al, RTC_DATA
        ret

# al = register; returns its value as a number in al, whatever register B says.
rtc_number:
        push rax
        mov al, 0x0b
        call rtc_read
        mov cl, al
        pop rax
        call rtc_read
        test cl, 4                      # DM: binary
        jnz 1f
        movzx ecx, al
        shr ecx, 4
        imul ecx, ecx, 6
        sub al, cl                      # BCD to binary
1:      ret

# 8259A and 8254: twenty interrupts at 100 Hz, waited for with HLT.
show_timer:
        lea rsi, [rip + text_timer]
        call puts
        mov al, 0x11                    # ICW1: edge triggered, cascade, ICW4 follows
        out PIC1, al
        out PIC2, al
        mov al, TIMER_VECTOR            # ICW2
        out PIC1 + 1, al
        mov al, TIMER_VECTOR + 8
        out PIC2 + 1, al
        mov al, 4                       # ICW3: slave at IR2
        out PIC1 + 1, al
        mov al, 2
        out PIC2 + 1, al
        mov al, 1                       # ICW4: 8086 mode
        out PIC1 + 1, al
        out PIC2 + 1, al
        mov al, 0xfe                    # OCW1: all but IR0 masked
        out PIC1 + 1, al
        mov al, 0xff
        out PIC2 + 1, al
        mov al, 0x34                    # counter 0, LSB then MSB, mode 2, binary
        out PIT_CONTROL, al
        mov eax, PIT_HZ / TICK_HZ
        out PIT_COUNTER0, al
        mov al, ah
        out PIT_COUNTER0, al
        call tsc
        mov r12, rax
1:      sti
        hlt
        cli
        cmp dword ptr [rip + ticks], TICKS
        jb 1b
        call tsc
        sub rax, r12
        mov r12, rax
        mov al, 0xff                    # all masked again
        out PIC1 + 1, al
        mov eax, [rip + ticks]
        call putdec
        lea rsi, [rip + text_ticks]
        call puts
        mov rax, r12
        call putdec
        lea rsi, [rip + text_cycles]
        jmp puts

timer_interrupt:
        push rax
        inc dword ptr [rip + ticks]
        mov al, 0x20                    # OCW2: non-specific EOI
        out PIC1, al
        pop rax
        iretq

tsc:    rdtsc
        shl rdx, 32
        or rax, rdx
        ret

# Local APIC: identification and version.
show_lapic:
        lea rsi, [rip + text_lapic]
        call puts
        mov ebx, LAPIC
        mov eax, [rbx + 0x20]
        shr eax, 24
        call putdec
        lea rsi, [rip + text_version]
        call puts
        mov eax, [rbx + 0x30]
        mov cl, 8
        call puthex
        jmp newline

# HPET: capabilities, then the main counter started and read until it has moved.
show_hpet:
        lea rsi, [rip + text_hpet]
        call puts
        mov ebx, HPET
        mov rax, [rbx]                  # GCAP_ID
        mov r12, rax
        shr rax, 32                     # period in femtoseconds
        mov ecx, 1000000
        xor edx, edx
        div rcx
        call putdec
        lea rsi, [rip + text_period]
        call puts
        mov rax, r12
        shr eax, 8
        and eax, 0x1f                   # NUM_TIM_CAP: number of the last one
        inc eax
        call putdec
        lea rsi, [rip + text_timers]
        call puts
        or dword ptr [rbx + 0x10], 1    # GEN_CONF.ENABLE_CNF
        mov r12, [rbx + 0xf0]           # MAIN_CNT
        mov ecx, 1000000
1:      cmp [rbx + 0xf0], r12
        jne 2f
        dec ecx
        jnz 1b
        lea rsi, [rip + text_stands]
        jmp puts
2:      and dword ptr [rbx + 0x10], -2
        lea rsi, [rip + text_runs]
        jmp puts

# i8042: the controller's self-test.
show_kbc:
        lea rsi, [rip + text_kbc]
        call puts
        mov ecx, 100000
1:      in al, KBC_STATUS
        test al, 2                      # input buffer full
        jz 2f
        dec ecx
        jnz 1b
2:      mov al, 0xaa
        out KBC_STATUS, al
        mov ecx, 100000
3:      in al, KBC_STATUS
        test al, 1                      # output buffer full
        jnz 4f
        dec ecx
        jnz 3b
4:      in al, KBC_DATA
        movzx eax, al
        mov cl, 2
        call puthex
        jmp newline

# ACPI: the RSDP in the BIOS area, the signatures in the RSDT, the PM timer by the FADT.
show_acpi:
        lea rsi, [rip + text_acpi]
        call puts
        mov ebx, 0xe0000
        mov rax, 0x2052545020445352     # "RSD PTR "
1:      cmp [rbx], rax
        je 2f
        add ebx, 16
        cmp ebx, 0x100000
        jb 1b
        lea rsi, [rip + text_none]
        jmp puts
2:      mov ebx, [rbx + 16]             # RSDT
        mov r12d, [rbx + 4]             # its length
        add r12, rbx
        add rbx, 36
3:      cmp rbx, r12
        jae 5f
        mov r13d, [rbx]
        mov eax, [r13]
        cmp eax, 0x50434146             # "FACP"
        jne 4f
        mov ecx, [r13 + 64]             # PM1a_CNT_BLK
        mov [rip + pm1a_control], ecx
        mov ecx, [r13 + 76]             # PM_TMR_BLK
        mov [rip + pm_timer], ecx
4:      mov [rip + buffer], eax
        mov byte ptr [rip + buffer + 4], 0
        lea rsi, [rip + buffer]
        call puts
        mov al, ' '
        call putc
        add rbx, 4
        jmp 3b
5:      mov edx, [rip + pm_timer]
        test edx, edx
        jz newline
        in eax, dx
        mov r12d, eax
        lea rsi, [rip + text_pmtimer]
        call puts
        mov eax, edx
        mov cl, 4
        call puthex
        lea rsi, [rip + text_moved]
6:      in eax, dx
        cmp eax, r12d
        je 6b
        jmp puts

# PCI: the functions of bus 0 by configuration mechanism 1.
show_pci:
        xor r12d, r12d                  # device << 3 | function
1:      xor ecx, ecx
        call pci_read
        cmp ax, 0xffff
        je 3f
        mov r13d, eax
        lea rsi, [rip + text_pci]
        call puts
        mov eax, r12d
        shr eax, 3
        mov cl, 2
        call puthex
        mov al, '.'
        call putc
        mov eax, r12d
        and eax, 7
        mov cl, 1
        call puthex
        mov al, ' '
        call putc
        movzx eax, r13w
        mov cl, 4
        call puthex
        mov al, ':'
        call putc
        mov eax, r13d
        shr eax, 16
        mov cl, 4
        call puthex
        lea rsi, [rip + text_class]
        call puts
        mov ecx, 8
        call pci_read
        shr eax, 16
        mov cl, 4
        call puthex
        call newline
3:      test r12d, 7                    # function 0 says whether there are others
        jnz 4f
        mov ecx, 0x0c
        call pci_read
        test eax, 0x800000
        jnz 4f
        add r12d, 7
4:      inc r12d
        cmp r12d, 256
        jb 1b
        ret

# r12d = device << 3 | function, ecx = register; returns the dword in eax.
pci_read:
        mov eax, r12d
        shl eax, 8
        or eax, ecx
        or eax, 0x80000000
        mov edx, PCI_ADDRESS
        out dx, eax
        mov edx, PCI_DATA
        in eax, dx
        ret

# Memory: a megabyte filled with a pattern and summed, four times (FNV-1a on 64-bit words).
show_checksum:
        lea rsi, [rip + text_checksum]
        call puts
        mov rax, 0xcbf29ce484222325
        mov r8, 0x100000001b3
        mov ebx, CHECK_PASSES
1:      mov edi, offset workspace
        mov ecx, CHECK_BYTES / 8
        mov rdx, rax
2:      mov [rdi], rdx
        add rdx, r8
        rol rdx, 7
        add rdi, 8
        dec ecx
        jnz 2b
        mov esi, offset workspace
        mov ecx, CHECK_BYTES / 8
3:      xor rax, [rsi]
        imul rax, r8
        add rsi, 8
        dec ecx
        jnz 3b
        dec ebx
        jnz 1b
        mov cl, 16
        call puthex
        jmp newline

# ---------------------------------------------------------------- 16550

uart_setup:
        mov edx, COM1 + 1
        xor eax, eax                    # IER: none
        out dx, al
        mov edx, COM1 + 3
        mov al, 0x80                    # LCR.DLAB
        out dx, al
        mov edx, COM1
        mov al, 1                       # DLL: 115200 baud
        out dx, al
        inc edx
        xor eax, eax                    # DLM
        out dx, al
        mov edx, COM1 + 3
        mov al, 3                       # LCR: 8 data bits, no parity, 1 stop bit
        out dx, al
        mov edx, COM1 + 2
        mov al, 7                       # FCR: enable and clear both FIFOs
        out dx, al
        mov edx, COM1 + 4
        mov al, 3                       # MCR: DTR, RTS
        out dx, al
        ret

# al = character. All registers are kept.
putc:
        push rax
        push rdx
        mov ah, al
        mov edx, COM1 + 5
1:      in al, dx
        test al, LSR_THRE
        jz 1b
        mov al, ah
        mov edx, COM1
        out dx, al
        pop rdx
        pop rax
        ret

newline:
        mov al, '\r'
        call putc
        mov al, '\n'
        jmp putc

# rsi = text that ends with a zero byte; a line feed is sent as CR LF.
puts:
        lodsb
        test al, al
        jz 2f
        cmp al, '\n'
        jne 1f
        mov al, '\r'
        call putc
        mov al, '\n'
1:      call putc
        jmp puts
2:      ret

# rax = number, cl = digits.
puthex:
        push rbx
        push rdx
        mov rbx, rax
        mov dl, cl
1:      dec dl
        js 3f
        lea ecx, [rdx * 4]
        mov rax, rbx
        shr rax, cl
        and al, 0xf
        add al, '0'
        cmp al, '9'
        jbe 2f
        add al, 'a' - '0' - 10
2:      call putc
        jmp 1b
3:      pop rdx
        pop rbx
        ret

# al = number below 100, printed with two digits.
put2:
        movzx eax, al
        cmp eax, 10
        jae putdec
        push rax
        mov al, '0'
        call putc
        pop rax
# rax = number, printed in decimal.
putdec:
        push rcx
        push rdx
        push rsi
        lea rsi, [rip + buffer + 31]
        mov byte ptr [rsi], 0
        mov ecx, 10
1:      xor edx, edx
        div rcx
        add dl, '0'
        dec rsi
        mov [rsi], dl
        test rax, rax
        jnz 1b
        call puts
        pop rsi
        pop rdx
        pop rcx
        ret

# ---------------------------------------------------------------- interrupt descriptor table

idt_setup:
        lea rax, [rip + unexpected]
        mov edi, offset idt
        mov ecx, 256
1:      call idt_gate
        add edi, 16
        dec ecx
        jnz 1b
        lea rax, [rip + timer_interrupt]
        mov edi, offset idt + TIMER_VECTOR * 16
        call idt_gate
        lidt [rip + idt_pointer]
        ret

# rdi = gate, rax = handler: a 64-bit interrupt gate (SDM vol. 3, 6.14.1).
idt_gate:
        mov rdx, rax
        mov [rdi], dx
        mov word ptr [rdi + 2], CODE64
        mov word ptr [rdi + 4], 0x8e00
        shr rdx, 16
        mov [rdi + 6], edx
        mov dword ptr [rdi + 10], 0
        mov word ptr [rdi + 14], 0
        ret

unexpected:
        lea rsi, [rip + text_unexpected]
        call puts
        mov rax, [rsp]                  # RIP or error code
        mov cl, 16
        call puthex
        call newline
        mov eax, 1
        jmp leave_guest

# ---------------------------------------------------------------- data

        .section .rodata
        .balign 8
gdt:    .quad 0
        .quad 0x00af9b000000ffff        # CODE64
        .quad 0x00cf93000000ffff        # DATA
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .quad gdt
idt_pointer:
        .word 256 * 16 - 1
        .quad idt

text_hello:      .asciz "Workbench demo guest: 64-bit mode, paging on.\n"
text_cpu:        .asciz "CPU       "
text_rtc:        .asciz "RTC       "
text_timer:      .asciz "PIC, PIT  "
text_ticks:      .asciz " timer interrupts at 100 Hz in "
text_cycles:     .asciz " TSC cycles\n"
text_lapic:      .asciz "LAPIC     id "
text_version:    .asciz ", version "
text_hpet:       .asciz "HPET      period "
text_period:     .asciz " ns, "
text_timers:     .asciz " timers, main counter "
text_stands:     .asciz "stands still\n"
text_runs:       .asciz "runs\n"
text_kbc:        .asciz "i8042     self-test "
text_acpi:       .asciz "ACPI      "
text_none:       .asciz "no RSDP\n"
text_pmtimer:    .asciz "and a PM timer at port "
text_moved:      .asciz " that runs\n"
text_pci:        .asciz "PCI       00:"
text_class:      .asciz " class "
text_checksum:   .asciz "Checksum  "
text_unexpected: .asciz "\nunexpected interrupt, top of stack "
text_done:       .asciz "Done.\n"

        .section .bss
        .balign 4096
pml4:           .skip 4096
pdpt:           .skip 4096
directories:    .skip 4 * 4096
idt:            .skip 256 * 16
stack:          .skip 8192
stack_top:
buffer:         .skip 64
ticks:          .skip 4
pm1a_control:   .skip 4
pm_timer:       .skip 4
        .balign 4096
workspace:      .skip CHECK_BYTES
