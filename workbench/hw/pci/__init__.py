"""PCI: configuration space, functions, the bus."""
