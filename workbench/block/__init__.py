"""Disk images and protocols of the host, and the disk that a device sees.

`opening.open_image` turns a file name or URL into an `Image`; `disk.Disk` is what devices read and
write. Nothing in here knows a device.
"""
