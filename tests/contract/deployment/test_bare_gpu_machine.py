"""The model runs, and its GPU tests are found, without the packages of the service."""

import subprocess
import sys

from contract.settings import REPOSITORY

# What such a machine lacks; huggingface_hub of this project's pins is loaded before, with its own.
BARE = """
import sys
import huggingface_hub.file_download, huggingface_hub.hf_api, transformers.modeling_utils
for name in ("bitsandbytes", "celery", "flask", "gunicorn", "httpx2", "kombu", "orjson",
             "pydantic", "pydantic_core", "redis", "structlog"):
    sys.modules[name] = None
"""
# In two pieces, so that this file does not have it.
GPU_MARK = "@pytest.mark" + ".gpu"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def run_bare(program: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", BARE + program)


def test_demo_is_scored_without_a_package_of_the_service():
    ended = run_bare(
        "import bench.gpu, bench.results\n"
        "from model import Scorer, ScoreRequest\n"
        "scorer = Scorer.load('model/checkpoints/demo')\n"
        "print(scorer.score([ScoreRequest(text=b'some text')])[0]['num_bytes'])"
    )
    assert ended.stdout == "9\n", ended.stderr


def test_gpu_tests_are_collected_without_a_package_of_the_service(tmp_path):
    (tmp_path / "bare.py").write_text(BARE)
    ended = run(
        *("env", f"PYTHONPATH={tmp_path}", sys.executable, "-m", "pytest", "-p", "bare"),
        *("-m", "gpu", "-q", "--collect-only", "-p", "no:cacheprovider"),
    )
    collected = {line.partition("::")[0] for line in ended.stdout.splitlines() if "::" in line}
    tests = set((REPOSITORY / "tests").rglob("test_*.py"))
    marked = {path for path in tests if GPU_MARK in path.read_text()}
    kernels = {path for path in tests if path.parent.name == "kernels"}

    assert ended.returncode == 0, ended.stdout
    assert collected == {str(path.relative_to(REPOSITORY)) for path in marked | kernels}
    assert len(collected) > 5
