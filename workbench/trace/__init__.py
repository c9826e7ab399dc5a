"""Traces: the file format, the recorder, the replayer. `reader.open_trace` reads one."""
