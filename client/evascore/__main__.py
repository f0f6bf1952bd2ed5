"""Runs the command `evascore` as `python -m evascore`."""

import sys

from evascore.cli.main import main

sys.exit(main())
