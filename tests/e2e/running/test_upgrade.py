"""An upgrade and a rollback of `make run`: one release goes on with what the other has left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.settings import REPOSITORY
from tests.releases import NEXT, THIS, Work, make_next
from tests.service import Service, suspended

FOLDERS = ("app", "contract", "deploy", "model", "worker")


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the next release."""
    folder = tmp_path_factory.mktemp("next")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for path in ("gunicorn.conf.py", "redis.conf"):
        shutil.copy(REPOSITORY / path, folder)
    make_next(folder)
    return folder


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with small micro-batches, so that a batch takes a while."""
    service = Service(tmp_path, micro_batch_bytes=4096, micro_batch_texts=2)
    yield service
    service.stop()


def test_upgrade_and_rollback_lose_no_job_and_no_result(service, next_release):
    left: list[Work] = []
    for version, folder in ((THIS, REPOSITORY), (NEXT, next_release), (THIS, REPOSITORY)):
        service.repository = folder
        # `start` waits for the line of this start.
        service.log.write_bytes(b"")
        service.start()
        with service.client() as http:
            assert http.get("/info").json()["service"]["version"] == version
            for work in left:
                work.check_all_is_scored(http)
            stats = http.get("/stats").json()
            assert stats["queue"]["parked"] == 0
            assert stats["dead_letters"]["count"] == 0
            if len(left) < 2:
                left.append(Work(http, suspended(service.part("worker"))))
        assert service.stop() == 0
