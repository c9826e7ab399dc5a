"""Client of the Network Block Device protocol (doc/proto.md of the NBD project)."""
