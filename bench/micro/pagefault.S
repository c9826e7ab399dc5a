# Page faults: 512 pages are touched one after the other, each touch faults and the handler maps the
# page; then all are unmapped and the TLB is flushed. COUNT rounds of 512 faults.

        .include "common.inc"
        .set WINDOW, 0x40000000         # 2 MiB, mapped by `table`
        .set FRAME, 0x800000
main:
        mov rax, offset page_fault      # vector 14: a 64-bit interrupt gate
        mov edi, offset idt + 14 * 16
        mov [rdi], ax
        mov word ptr [rdi + 2], KERNEL_CS
        mov word ptr [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], eax
        lidt [rip + idt_pointer]
        mov edi, offset directories + 0x1000
        mov qword ptr [rdi], offset table + 3
        xor ebx, ebx                    # faults
        mov ecx, COUNT
1:      mov edi, offset table
        xor eax, eax
        mov edx, 512
2:      mov [rdi], rax
        add edi, 8
        dec edx
        jnz 2b
        mov rax, cr3
        mov cr3, rax
        mov esi, WINDOW
        mov edx, 512
3:      add dword ptr [rsi], 1
        add esi, 0x1000
        dec edx
        jnz 3b
        dec ecx
        jnz 1b
        cmp rbx, COUNT * 512
        jne 4f
        cmp dword ptr [FRAME], COUNT * 512
        jne 4f
        leave 0x10
4:      leave 0x11

# Maps the page of CR2 to the one frame that all pages share.
page_fault:
        push rax
        mov rax, cr2
        shr eax, 12
        and eax, 511
        mov qword ptr [rax * 8 + table], FRAME + 3
        inc rbx
        pop rax
        add rsp, 8                      # error code
        iretq

idt_pointer:
        .word 15 * 16 - 1
        .quad idt

        .section .bss
        .balign 4096
table:  .skip 4096
