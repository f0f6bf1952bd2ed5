"""Shifts `time.time` of a Python process by the seconds in a file, which it reads once a second.

Python imports this module at its start where the folder is on PYTHONPATH. It takes the place of
libfaketime, which makes every `time.sleep` of Python 3.11 and newer fail.
"""

import os
import time

_file = os.environ.get("CHAOS_CLOCK")
_true_time = time.time
_read_at, _shift_s = float("-inf"), 0.0


def _shifted_time() -> float:
    global _read_at, _shift_s
    if time.monotonic() > _read_at + 1:
        _read_at = time.monotonic()
        try:
            with open(_file) as shift:
                _shift_s = float(shift.read() or 0)
        except (OSError, ValueError):
            pass
    return _true_time() + _shift_s


if _file is not None:
    time.time = _shifted_time
