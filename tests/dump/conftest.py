"""The recording of the demo guest that the tests of gdb use."""

from tests.gdbstub.conftest import demo_path, timeline, trace

__all__ = ["demo_path", "timeline", "trace"]
