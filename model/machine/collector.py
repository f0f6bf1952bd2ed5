"""Keeps Python's garbage collector from walking a whole loaded model again and again.

The collector looks for cycles of objects. It starts after every 700 new containers. Now and then it
walks all objects: 400,000 of them, for 0.2 s, where PyTorch and transformers are loaded.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector while many lists are made that can form no cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def leave_out_loaded_objects() -> None:
    """Leave what the process holds now out of later collections.

    For a process that keeps its model to the end: cycles among these objects are never freed.
    """
    gc.collect()
    gc.freeze()
