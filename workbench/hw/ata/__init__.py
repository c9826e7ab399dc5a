"""ATA: task file channels, disks and packet devices; the controller is in `hw/piix_ide.py`."""
