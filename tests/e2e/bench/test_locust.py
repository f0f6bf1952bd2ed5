"""locust, a third-party load generator, gets scores with the file in bench/outsiders."""

import csv
import subprocess

import pytest

from contract.settings import REPOSITORY
from tests.conftest import HANG_S

LOCUST = REPOSITORY / ".venv-locust" / "bin" / "locust"

pytestmark = pytest.mark.skipif(
    not LOCUST.exists(), reason="locust is not installed: make .venv-locust/installed"
)


def test_every_user_gets_scores(scoring, tmp_path):
    ran = subprocess.run(
        [
            *(LOCUST, "-f", REPOSITORY / "bench" / "outsiders" / "locustfile.py"),
            *("--host", scoring.url, "--headless", "--users", "3", "--spawn-rate", "3"),
            *("--run-time", "5s", "--stop-timeout", str(HANG_S), "--csv", tmp_path / "load"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    with (tmp_path / "load_stats.csv").open() as found:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(found)}
    scored = rows["TEXT", "from POST to score"]
    assert int(scored["Request Count"]) >= 3
    assert {row["Failure Count"] for row in rows.values()} == {"0"}
    assert rows["POST", "POST /score"]["Request Count"] == scored["Request Count"]
