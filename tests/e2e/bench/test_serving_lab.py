"""The serving lab runs to its end in its shortest form, and leaves table, plots and figures."""

import json
import subprocess
import sys

import pytest

from bench.peers.servers import PEERS_PYTHON
from contract.settings import REPOSITORY
from tests.conftest import HANG_S
from tests.service import TINY_CHECKPOINT


def run_lab(folder, *parts):
    """Run parts of the lab; the figures, the table and the names of the plots."""
    # As `make` has it, where the client is installed.
    command = [
        "env",
        f"PYTHONPATH={REPOSITORY / 'client'}",
        sys.executable,
        "-m",
        "bench.serving_lab",
        "--parts",
        *parts,
    ]
    short = ["--limits", "1 text", "--clients", "1", "3", "--seconds", "0.3"]
    ran = subprocess.run(
        [*command, *short, "--model", str(TINY_CHECKPOINT), "--folder", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=2 * HANG_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    found = json.loads((folder / "serving_lab.json").read_bytes())
    assert found["is_complete"]
    plots = {path.stem.removeprefix("serving_lab_") for path in folder.glob("*.svg")}
    return found["figures"], (folder / "serving_lab_table.md").read_text(), plots


def test_parts_of_evascore_leave_table_plots_and_figures(tmp_path):
    figures, table, plots = run_lab(tmp_path, "compute", "micro-batches", "workers")
    assert plots == {"throughput", "latency", "queue", "workers", "stages", "compute"}
    assert "| 1 text | 3 |" in table
    assert "| 2 workers | 6 |" in table
    # Without micro-batches each text is alone.
    assert figures["1_text_clients_3_batch_texts"] == 1
    assert figures["compute_64_texts_ms_per_text"] > 0
    assert figures["2_workers_clients_6_queue_ms"] > 0


@pytest.mark.skipif(not PEERS_PYTHON.exists(), reason="FastAPI is not installed: make serving-lab")
def test_part_of_fastapi_leaves_its_rows(tmp_path):
    figures, table, plots = run_lab(tmp_path, "fastapi")
    assert plots == {"throughput", "latency", "queue"}
    assert "| FastAPI | 3 |" in table
    assert figures["fastapi_clients_1_queue_ms"] == 0
