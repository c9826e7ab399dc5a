"""Virtio devices: queues, transports and devices, each independent of the others."""
