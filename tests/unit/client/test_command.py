"""The command `evascore` while its modules are loaded."""

import signal
import subprocess
import sys

from contract.settings import REPOSITORY
from tests.conftest import killed_at_end

# Stands for a package that takes long to load.
SLOW = "import time\nprint('loading', flush=True)\ntime.sleep(3600)\n"


def test_ctrl_c_while_modules_are_loaded_shows_no_traceback(tmp_path):
    (tmp_path / "httpx.py").write_text(SLOW)
    path = f"PYTHONPATH={tmp_path}:{REPOSITORY / 'client'}"
    run_it = "from evascore_command import main; main()"
    process = subprocess.Popen(
        ["env", path, sys.executable, "-c", run_it],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have started the tests in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with killed_at_end(process):
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGINT, "")
