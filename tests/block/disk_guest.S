# A guest that uses the disk behind 0x1f0 by PIO and tells on COM1. It reads sector 1 and prints
# its first 4 bytes; then it writes SECTORS sectors from 8 on, one after the other, each full of its
# number as a word, with FLUSH CACHE, and prints "." after each. At the end it leaves by port 0xf4
# with 0, or with 1 if the disk has told of an error. It is a multiboot 1 program.

        .intel_syntax noprefix
        .section .text
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
        .code32
        .globl start
start:  mov esp, offset stack_top
        cli
        cld
        mov ecx, 1
        mov al, 0x20                    # READ SECTOR(S)
        call command
        call data
        mov dx, 0x1f0
        mov edi, offset buffer
        mov ecx, 256
        rep insw
        mov esi, offset buffer
        mov dx, 0x3f8
        mov ecx, 4
        rep outsb
        mov ecx, 8
next:   cmp ecx, 8 + SECTORS
        je good
        mov al, 0x30                    # WRITE SECTOR(S)
        call command
        call data
        mov eax, ecx
        mov edi, offset buffer
        push ecx
        mov ecx, 256
        rep stosw
        mov dx, 0x1f0
        mov esi, offset buffer
        mov ecx, 256
        rep outsw
        pop ecx
        call wait
        mov al, 0xe7                    # FLUSH CACHE
        call command
        call wait
        mov dx, 0x3f8
        mov al, '.'
        out dx, al
        inc ecx
        jmp next

good:   xor eax, eax
leave:  mov dx, 0xf4
        out dx, al
        hlt

command: # al, on one sector at ecx
        push eax
        mov dx, 0x1f6
        mov al, 0xe0
        out dx, al
        mov dx, 0x1f2
        mov al, 1
        out dx, al
        mov eax, ecx
        inc dx
        out dx, al
        shr eax, 8
        inc dx
        out dx, al
        shr eax, 8
        inc dx
        out dx, al
        pop eax
        mov dx, 0x1f7
        out dx, al
        ret

wait:   mov dx, 0x1f7                   # until not busy
1:      in al, dx
        test al, 0x80
        jnz 1b
        test al, 1
        jz 2f
        mov al, 1
        jmp leave
2:      ret

data:   call wait
        test al, 8
        jz data
        ret

        .bss
        .balign 16
buffer: .skip 512
        .skip 4096
stack_top:
