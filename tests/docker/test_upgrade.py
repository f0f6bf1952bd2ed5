"""An upgrade and a rollback of containers, with the commands of docs/upgrade.md.

The tests run in order on one service, which is full of work whenever a release is replaced.
"""

from collections.abc import Iterator

import pytest

from tests.docker.upgrades import Ledger, Upgraded, started
from tests.releases import NEXT, THIS


@pytest.fixture(scope="module")
def service(images, tmp_path_factory: pytest.TempPathFactory) -> Upgraded:
    """A checkout with both releases."""
    return Upgraded(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def ledger(service: Upgraded) -> Iterator[Ledger]:
    """The running service, this release, and what was left by it."""
    with started(service) as ledger:
        yield ledger


def test_upgrade_of_containers_loses_no_job_and_no_result(ledger):
    ledger.upgrade(NEXT)


def test_rollback_of_containers_loses_no_job_and_no_result(ledger):
    ledger.upgrade(THIS)
