"""schemathesis, as it comes, finds nothing: what /openapi.json says is what the service does."""

import subprocess

import pytest

from contract.settings import REPOSITORY
from tests.service import Service

SCHEMATHESIS = REPOSITORY / ".venv-schemathesis" / "bin" / "schemathesis"
MAX_TIME_S = 20

pytestmark = pytest.mark.skipif(
    not SCHEMATHESIS.exists(), reason="schemathesis is not installed: make test-openapi"
)


def test_api_is_as_described(tmp_path):
    service = Service(tmp_path).start(timeout_s=120)
    try:
        run = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"{service.url}/openapi.json", "--no-color"),
                *("--max-time", str(MAX_TIME_S), "--seed", "1", "--request-timeout", "30"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20 * MAX_TIME_S,
            check=False,
        )
    finally:
        exit_code = service.stop()
    assert run.returncode == 0, run.stdout[-8000:]
    assert exit_code == 0
    assert "request_failed" not in service.log.read_text()
