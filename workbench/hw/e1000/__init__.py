"""82540EM gigabit Ethernet controller."""
