"""`python -m evascore` is the command `evascore`."""

import sys

from evascore.cli.main import main

sys.exit(main())
