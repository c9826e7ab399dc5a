"""The gdb remote serial protocol on machines that run live or are replayed."""
