"""Runs Celery's command line as the first process of a container: no signal ends it by default."""

import runpy
import signal
import sys

if __name__ == "__main__":
    del sys.argv[0]
    signal.raise_signal = lambda _: None
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
