# Tight loop: a load, three additions, a decrement and a branch. COUNT turns of six instructions.

        .include "common.inc"
main:
        mov ecx, COUNT
        lea rsi, [rip + cell]
        xor eax, eax
        xor ebx, ebx
        xor edi, edi
        .balign 16
1:      mov rdx, [rsi]
        add rax, rdx
        add rbx, rax
        add rdi, 3
        dec ecx
        jnz 1b
        cmp rdi, COUNT * 3
        jne 2f
        leave 0x10
2:      leave 0x11

        .balign 8
cell:   .quad 1
