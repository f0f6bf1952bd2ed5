"""The turns of the scoring loop when their connection to the broker is lost between two turns."""

from types import SimpleNamespace

import pytest
from kombu.asynchronous import Hub
from structlog.testing import capture_logs

from contract.settings import REPOSITORY, load_settings
from contract.store.batches.batch_queue import BatchQueue
from contract.store.connection.broker import connect
from contract.store.jobs.job_store import JobStore
from contract.store.queue.model_registry import ModelRegistry
from deploy.embedded_redis import free_port
from model import Scorer
from tests.conftest import HANG_S
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.registration import Registration
from worker.process.runtime import Runtime
from worker.process.startup import Startup
from worker.queue.micro_batch import TurnFailed, Turns
from worker.queue.transport import Transport
from worker.scheduling.batching_delay import ANY_TIME, BatchingDelay


class Request:
    """A fetched job, as Celery would hold it."""

    id = "a"
    message = SimpleNamespace(
        channel=SimpleNamespace(is_refused=False),
        delivery_info={},
        headers={"cost": 1},
    )


@pytest.fixture
def runtime():
    """The parts of a worker whose Redis has gone away."""
    settings = load_settings({"EVASCORE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    status = OwnStatus("w", settings.micro_batch_bytes, Startup("consume", began_at=0.0))
    with connect(settings) as client:
        yield Runtime(
            settings,
            client,
            JobStore(client, settings),
            BatchQueue(client, settings),
            status,
            Lease(client, status, lease_s=1, micro_batch_timeout_s=1),
            Registration(ModelRegistry(client), status),
            scorer=Scorer.load(str(REPOSITORY / "tests/oracle/small")),
        )


def test_turn_that_outlives_its_connection_does_nothing(runtime):
    hub = Hub()
    consumer = SimpleNamespace(
        hub=hub,
        call_soon=hub.call_soon,
        timer=hub.timer,
        controller=SimpleNamespace(state=SimpleNamespace(revoked=())),
    )
    Turns(runtime, consumer).add(Request())
    # What Celery does then; a turn in earnest would raise.
    hub.reset()
    assert not hub.on_close


def test_job_that_waits_for_others_is_no_suspect_and_looked_for_by_fetches(runtime):
    hub, looks = Hub(), []
    consumer = SimpleNamespace(
        hub=hub,
        call_soon=hub.call_soon,
        timer=hub.timer,
        controller=SimpleNamespace(state=SimpleNamespace(revoked=())),
    )
    turns, channel = Turns(runtime, consumer), Request.message.channel
    channel.look_for_more, channel.opens_after = looks.append, ANY_TIME
    delay = turns._loop._batching_delay = BatchingDelay(clock=lambda: 0.0)
    delay.begin(2, ended_at=0.0, elapsed_s=HANG_S)
    turns.add(Request())
    # A turn in earnest would raise. A fetch that opened a job would make it a suspect.
    turns.turn()
    assert looks == [turns._schedule]
    assert channel.opens_after is None
    hub.close()


@pytest.mark.parametrize("error", [KeyError("secret"), ValueError("secret")])
def test_unknown_error_in_a_turn_breaks_the_worker_and_is_no_lost_connection(runtime, error):
    def fail():
        raise error

    hub = Hub()
    consumer = SimpleNamespace(
        hub=hub,
        call_soon=hub.call_soon,
        timer=hub.timer,
        controller=SimpleNamespace(state=SimpleNamespace(revoked=())),
    )
    turns = Turns(runtime, consumer)
    turns.add(Request())
    turns._loop.turn = fail
    with capture_logs() as logs, pytest.raises(TurnFailed) as raised:
        turns.turn()
    assert runtime.is_broken
    assert not isinstance(raised.value, Transport.connection_errors)
    assert [each["error"] for each in logs if each["event"] == "turn_failed"] == [
        type(error).__name__
    ]
    assert "secret" not in f"{logs} {raised.value}"
