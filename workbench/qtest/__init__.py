"""Devices without a guest: QEMU's qtest protocol, and the same from Python (`client.Client`)."""
