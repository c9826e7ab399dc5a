# A guest that faults three times, and fills a buffer of four pages by REP STOSD after each: UD2 with
# a handler that returns behind it. It is a multiboot 1 program in 32-bit code.

        .intel_syntax noprefix
        .section .text
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
        .code32
        .globl start
start:  lgdt [gdt_pointer]
        .byte 0xea                      # JMP 8:begin
        .long begin
        .word 8
begin:   mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, offset stack_top
        cld
        mov eax, offset handler
        mov word ptr [idt + 6 * 8], ax
        mov word ptr [idt + 6 * 8 + 2], 8
        mov word ptr [idt + 6 * 8 + 4], 0x8e00
        shr eax, 16
        mov word ptr [idt + 6 * 8 + 6], ax
        lidt [idt_pointer]
        mov ebx, 3
again:  nop
        ud2
        mov edi, offset buffer
        mov eax, ebx
        mov ecx, 4096
        rep stosd
        dec ebx
        jnz again
        cli
        hlt

handler:
        inc dword ptr [faults]
        add dword ptr [esp], 2
        iretd

        .balign 8
gdt:    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer: .word 23
        .long gdt
idt_pointer: .word 8 * 8 - 1
        .long idt
        .bss
        .balign 4096
buffer: .skip 16384
idt:    .skip 64
faults: .skip 4
        .skip 1024
stack_top:
