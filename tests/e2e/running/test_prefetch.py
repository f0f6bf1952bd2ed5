"""`make prefetch`, killed in the middle and run again, against a Hub on this machine."""

import os
import signal
import subprocess
from pathlib import Path

from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.conftest import wait_until
from tests.fake_hub import FakeHub

# huggingface_hub writes what it receives in chunks of 10 MiB.
CHUNK_BYTES = 10 * 1024**2


def prefetch(hub: FakeHub, cache: Path) -> subprocess.Popen[str]:
    variables = [f"HF_ENDPOINT={hub.url}", f"HF_HOME={cache}", f"EVASCORE_MODEL={hub.name}"]
    return subprocess.Popen(
        ["env", *variables, "make", "--silent", "prefetch"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def test_killed_prefetch_goes_on_where_it_was(tmp_path):
    def has_written_a_chunk() -> bool:
        return any(part.stat().st_size == CHUNK_BYTES for part in tmp_path.rglob("*.part"))

    with FakeHub(Path(DEMO_CHECKPOINT)) as hub:
        hub.cuts = [(CHUNK_BYTES + 1, "stall")]
        killed = prefetch(hub, tmp_path)
        wait_until(has_written_a_chunk, timeout_s=120)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        output, _ = prefetch(hub, tmp_path).communicate()
    assert output.startswith(f"evascore prefetch: {hub.name} is downloaded: 1 file of weights"), (
        output
    )
    assert len(output.splitlines()) == 1
    assert hub.ranges == [None, f"bytes={CHUNK_BYTES}-"]
