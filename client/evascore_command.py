"""Runs the command `evascore`; Ctrl-C ends it without a traceback while its modules are loaded.

It lies outside the package, whose own import takes most of that time.
"""

import signal


def main() -> int:
    """Load the command line and run it; return the exit status."""
    handler = signal.getsignal(signal.SIGINT)
    # In the background of a shell SIGINT is ignored, and stays so.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from evascore.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    return run()
