# System calls: ring 3 calls ring 0 with SYSCALL, which returns with SYSRET. COUNT calls.

        .include "common.inc"
main:
        mov ecx, 0xc0000081             # IA32_STAR
        xor eax, eax
        mov edx, (USER_BASE | 3) << 16 | KERNEL_CS
        wrmsr
        mov ecx, 0xc0000082             # IA32_LSTAR
        mov eax, offset entry
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000084             # IA32_FMASK: interrupts off
        mov eax, 1 << 9
        wrmsr
        xor ebx, ebx                    # calls
        mov ecx, offset user
        mov r11d, 2
        sysretq

user:   mov edi, COUNT
1:      mov eax, 39
        syscall
        dec edi
        jnz 1b
        mov eax, 60
        syscall
        ud2

entry:  cmp eax, 60
        je 2f
        inc rbx
        sysretq
2:      cmp rbx, COUNT
        jne 3f
        leave 0x10
3:      leave 0x11
