# Memory copy: COUNT times 1 MiB with REP MOVSQ, then as often with 16-byte SSE moves.

        .include "common.inc"
        .set BLOCK, 0x100000
        .set SOURCE, 0x800000
        .set TARGET, 0xa00000
main:
        mov edi, SOURCE                 # something to copy
        mov ecx, BLOCK / 8
        mov rax, 0x0123456789abcdef
1:      mov [rdi], rax
        add rax, rdi
        add edi, 8
        dec ecx
        jnz 1b

        mov ebx, COUNT
2:      mov esi, SOURCE
        mov edi, TARGET
        mov ecx, BLOCK / 8
        rep movsq
        dec ebx
        jnz 2b

        mov ebx, COUNT
3:      mov esi, SOURCE
        mov edi, TARGET + BLOCK
        mov ecx, BLOCK / 64
4:      movdqa xmm0, [rsi]
        movdqa xmm1, [rsi + 16]
        movdqa xmm2, [rsi + 32]
        movdqa xmm3, [rsi + 48]
        movdqa [rdi], xmm0
        movdqa [rdi + 16], xmm1
        movdqa [rdi + 32], xmm2
        movdqa [rdi + 48], xmm3
        add esi, 64
        add edi, 64
        dec ecx
        jnz 4b
        dec ebx
        jnz 3b

        mov esi, TARGET                 # both copies are equal
        mov edi, TARGET + BLOCK
        mov ecx, BLOCK / 8
        repe cmpsq
        jne 5f
        leave 0x10
5:      leave 0x11
