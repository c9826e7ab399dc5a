"""CPU, buses, clock, lines and registers: imports nothing of the rest."""
