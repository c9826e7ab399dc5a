"""qcow2 images, natively."""
