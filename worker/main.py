"""Entry point of `celery -A worker.main worker -P solo -c 1`: builds the worker and starts it."""

import itertools
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import redis
from celery import Celery, bootsteps, signals
from celery.apps import worker as celery_worker
from celery.exceptions import SecurityWarning
from celery.utils.nodenames import NODENAME_DEFAULT, nodename, nodesplit

from contract import keys
from contract.core_dumps import forbid_core_dumps
from contract.logs import configure_logging, get_logger
from contract.settings import Settings, SettingsInvalid, load_settings
from contract.store.batches.batch_queue import BatchQueue
from contract.store.connection.broker import connect, too_old
from contract.store.connection.celery_app import create_celery
from contract.store.jobs.job_store import JobStore
from contract.tracing import TracingUnavailable, start_tracing
from contract.worker_status import GpuUse
from model import (
    GpuReading,
    ModelDrifted,
    ModelError,
    Scorer,
    ScoringFailed,
    check_canary,
    leave_out_loaded_objects,
)
from worker.process.lease import Lease, NameTaken
from worker.process.own_status import OwnStatus
from worker.process.registration import Registration
from worker.process.request_ids import RequestIds
from worker.process.runtime import Runtime
from worker.process.scoring_mark import ScoringMark
from worker.process.startup import Startup, process_age_s
from worker.process.storage import warn_of_network_mounts
from worker.queue import transport
from worker.queue.intake import Intake
from worker.queue.micro_batch import MicroBatch
from worker.recovery.dead_workers import Recovery, give_back, take_over
from worker.recovery.upkeep import set_aside_broken_leases
from worker.scheduling.filling import Budget
from worker.scheduling.room import room_for_fetch

if TYPE_CHECKING:
    from contract.otel import Tracing

log = get_logger(__name__)

# sysexits.h: settings or checkpoint are wrong, so a restart does not help.
EX_CONFIG = 78
_REDIS_RETRY_S = 0.5
_TRIES_PER_LINE = 60


def create_worker(
    settings: Settings, requests: RequestIds, tracing: "Tracing | None" = None
) -> Celery:
    """The Celery app with the scoring task and the handlers of a worker process.

    Args:
        requests: is given the request ID of each fetched job, for the log.
        tracing: makes the spans of jobs; None where traces are off.
    """
    transport.install()
    app = create_celery(settings)
    task = MicroBatch()
    task.name = keys.TASK
    app.register_task(task)
    app.steps["consumer"].add(Recovery)
    app.steps["worker"].add(ColdShutdown)
    Process(app, settings, requests, tracing).connect_signals()
    return app


class ColdShutdown(bootsteps.StartStopStep):
    """Worker step by which a cold shutdown (SIGQUIT) ends like a warm one."""

    def terminate(self, worker: Any) -> None:
        """Send the last signal of a worker; Celery itself sends it only after a warm shutdown."""
        # First, so that no fetch that is under way takes jobs after they were given back.
        worker.consumer.shutdown()
        signals.worker_shutdown.send(sender=worker)


class Process:
    """The stages of a worker process, in order; each method handles one of Celery's signals."""

    def __init__(
        self, app: Celery, settings: Settings, requests: RequestIds, tracing: "Tracing | None"
    ) -> None:
        self._app, self._requests, self._tracing = app, requests, tracing
        self._settings = settings
        self._startup = Startup("import", began_at=time.monotonic() - process_age_s())

    def connect_signals(self) -> None:
        """Connect the methods below to Celery's signals."""
        signals.setup_logging.connect(self.keep_logging, weak=False)
        signals.celeryd_init.connect(self.take_name, weak=False)
        signals.worker_init.connect(self.load_model, weak=False)
        signals.worker_ready.connect(self.say_ready, weak=False)
        signals.worker_shutting_down.connect(self.drain, weak=False)
        signals.worker_shutdown.connect(self.leave, weak=False)

    def keep_logging(self, **_: Any) -> None:
        """Keep our logging: without this receiver Celery would configure its own."""

    def take_name(self, sender: str, instance: Any, conf: Any, **_: Any) -> None:
        """Take the lease of the node name, and requeue the jobs of a dead predecessor at once."""
        self._startup.enter("redis")
        # Celery has set nothing but the application and this name yet.
        name = instance.hostname = _node_name(sender, self._settings.worker_name)
        mark = ScoringMark(self._settings.model_cache / "scoring", name)
        runtime = self._app.runtime = self._runtime(name, mark)
        conf.broker_transport_options = {
            **conf.broker_transport_options,
            **_channel_options(runtime, self._requests),
        }
        for tries in itertools.count():
            try:
                _claim_name(runtime, mark)
                # Celery sets a handler of its own once the model is loaded.
                signal.signal(signal.SIGTERM, self._stop_loading)
                return
            except NameTaken as error:
                _refuse(error)
            except redis.RedisError as error:
                if tries % _TRIES_PER_LINE == 0:
                    kind = type(error).__name__
                    log.warning("waiting_for_redis", error=kind, check="EVASCORE_REDIS_URL")
                time.sleep(_REDIS_RETRY_S)

    def _runtime(self, name: str, mark: ScoringMark) -> Runtime:
        """Make the components of the worker `name`; nothing is asked of Redis."""
        settings = self._settings
        client = connect(settings)
        store = JobStore(client, settings)
        status = OwnStatus(name, settings.micro_batch_bytes, self._startup)
        lease = Lease(
            client,
            status,
            lease_s=settings.lease_s,
            micro_batch_timeout_s=settings.micro_batch_timeout_s,
            health_file=settings.health_file,
            mark=mark,
        )
        batches = BatchQueue(client, settings)
        registration = Registration(store.models, status)
        return Runtime(settings, client, store, batches, status, lease, registration, self._tracing)

    def _stop_loading(self, number: int, _: object) -> None:
        """Give the lease back, so that the worker does not count as lost, and end by the signal."""
        signal.signal(number, signal.SIG_DFL)
        self._app.runtime.lease.release()
        signal.raise_signal(number)
        # Linux does not end the first process of a container by a signal without a handler.
        os._exit(128 + number)

    def load_model(self, sender: Any, **_: Any) -> None:
        """Load and warm up the model, before any job is fetched; end the process where it fails."""
        if "solo" not in sender.pool_cls.__module__:
            _refuse("the model is loaded once, in one process: start the worker with -P solo -c 1")
        try:
            scorer = self._scorer()
        except (ModelDrifted, ScoringFailed) as error:
            self._stop_drifted(error)
        except ModelError as error:
            _refuse(error)
        except Exception as error:  # noqa: BLE001 - Celery logs what a receiver raises, and goes on
            _fail_to_load(error)
        leave_out_loaded_objects()
        self._startup.enter("consume")
        self._app.conf.broker_transport_options = {
            **self._app.conf.broker_transport_options,
            "fingerprint": scorer.info.fingerprint,
        }
        runtime = self._app.runtime
        runtime.scorer = scorer
        runtime.status.model = scorer.info.as_json()
        runtime.status.pass_bytes = scorer.pass_bytes
        runtime.status.read_gpu = partial(_gpu_use, scorer.gpu_reader())
        log.info(
            "model_loaded",
            model=scorer.info.name,
            fingerprint=scorer.info.fingerprint,
            device=scorer.info.device,
            pass_bytes=scorer.pass_bytes,
        )
        if scorer.info.advice:
            log.warning("mode_saves_no_time", advice=scorer.info.advice)

    def _scorer(self) -> Scorer:
        """Load the model, compare its score of the canary text, and warm it up.

        Raises:
            ModelError: a restart would not help.
        """
        settings = self._settings
        warn_of_network_mounts(*_folders_read_at_start(settings))
        scorer = Scorer.load(
            settings.model,
            name=settings.served_name,
            hub_revision=settings.model_revision,
            device=settings.device,
            dtype=settings.dtype,
            kernels=settings.kernels,
            quantization=settings.quantization,
            cache_dir=settings.model_cache,
            is_reproducible=settings.reproducible,
            on_phase=self._startup.enter,
        )
        scorer.watch_compilation(lambda elapsed_s: self._startup.credit("compile", elapsed_s))
        self._startup.enter("canary")
        check_canary(scorer, settings.model_cache)
        self._startup.enter("warm_up")
        scorer.warm_up()
        return scorer

    def _stop_drifted(self, error: Exception) -> NoReturn:
        """Stop without scoring, and let `/readyz` say why."""
        runtime = self._app.runtime
        log.error("model_drifted", worker=runtime.status.name, reason=str(error))
        try:
            runtime.store.note_model_drifted(runtime.status.name)
        except redis.RedisError:
            log.warning("drift_not_stored", worker=runtime.status.name)
        _refuse(error)

    def say_ready(self, **_: Any) -> None:
        """Mark the worker ready: it takes jobs."""
        runtime = self._app.runtime
        self._startup.enter(None)
        runtime.become_ready()
        seconds = self._startup.as_json()["seconds"]
        log.info(
            "worker_ready",
            worker=runtime.status.name,
            startup_s=round(sum(seconds.values()), 3),
            phases_s=seconds,
        )

    def drain(self, **_: Any) -> None:
        """Stop when the running micro-batch ends, or after `drain_s` without it."""
        self._app.runtime.lease.drain(self._settings.drain_s, self._give_back)

    def leave(self, **_: Any) -> None:
        """Give back what was not scored; only an error in the scoring loop counts as a crash."""
        runtime = self._app.runtime
        if runtime.is_broken:
            # The lease and the suspects stay, as after a SIGKILL: the successor counts the death.
            runtime.lease.abandon()
        else:
            self._give_back()
        if self._tracing is not None:
            self._tracing.stop()
        log.info("worker_stopped", worker=runtime.status.name)

    def _give_back(self) -> None:
        """Requeue the jobs in hand, then delete the lease."""
        runtime = self._app.runtime
        try:
            give_back(runtime.client, runtime.status.name)
        except redis.RedisError as error:
            log.warning("jobs_not_given_back", error=type(error).__name__)
        runtime.lease.release()


def _node_name(given: str, worker_name: str) -> str:
    """Return the name of Celery's option -n; without it, EVASCORE_WORKER_NAME at this host."""
    name, host = nodesplit(given)
    return nodename(worker_name, host) if name == NODENAME_DEFAULT else given


def _channel_options(runtime: Runtime, requests: RequestIds) -> dict[str, Any]:
    """Return the options of the `Channel` of `worker/queue/transport.py`, but the fingerprint."""
    client, store, name = runtime.client, runtime.store, runtime.status.name
    return {
        "unacked_key": keys.unacked(name),
        "unacked_index_key": keys.unacked_index(name),
        "first_room": room_for_fetch((), Budget.of(runtime.settings))[keys.INTERACTIVE],
        "read_message": Intake(client, store, name, requests).read_message,
        "on_answer": runtime.status.note_step,
        "aboard_key": keys.aboard(name),
        "before_opening": runtime.lease.mark_scoring,
        "keep_opened": store.keep_opened,
    }


def _claim_name(runtime: Runtime, mark: ScoringMark) -> None:
    """Take the lease of the worker's name, and requeue the jobs of a dead predecessor.

    Raises:
        NameTaken, redis.RedisError
    """
    client, store, name = runtime.client, runtime.store, runtime.status.name
    if version := too_old(client):
        _refuse(f"Redis {version} is too old; use Redis 7.0 or newer, or Valkey")
    set_aside_broken_leases(client, store, name)
    runtime.lease.acquire()
    take_over(client, name, is_crash=not mark.was_left_idle)
    mark.end()
    store.note_started(name)
    runtime.lease.has_name = True


def _gpu_use(read: Callable[[], GpuReading | None]) -> GpuUse | None:
    reading = read()
    return None if reading is None else GpuUse(*reading)


def _folders_read_at_start(settings: Settings) -> list[Path]:
    """The folder of the model, unless it is a name on the Hub, and the cache."""
    model = Path(settings.model)
    return [*([model] if model.is_dir() else []), settings.model_cache]


def _refuse(reason: object) -> NoReturn:
    """End the process with one line that says why; a supervisor does not restart it."""
    print(f"evascore worker: {reason}", file=sys.stderr, flush=True)
    sys.exit(EX_CONFIG)


def _fail_to_load(error: Exception) -> NoReturn:
    """End the process and log why, with the traceback: it has read no text that this could show."""
    trace = "".join(traceback.format_exception(error))
    log.error("model_not_loaded", error=type(error).__name__, traceback=trace)
    reason = " ".join(str(error).split()) or type(error).__name__
    print(f"evascore worker: the model could not be loaded: {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def _log_celery(message: str, *_: Any) -> None:
    log.info("celery_message", message=message)


def _create_app() -> Celery:
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        _refuse(error)
    if settings.health_file is not None and not settings.health_file.parent.is_dir():
        _refuse(f"EVASCORE_HEALTH_FILE: there is no folder {settings.health_file.parent}; make it")
    requests = RequestIds()
    configure_logging(settings.log_level, "worker", request_id_of=requests.of)
    forbid_core_dumps()
    # Celery writes when it shuts down, past all logging.
    celery_worker.safe_say = _log_celery
    # Celery warns root of messages that hold code. This worker reads JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        tracing = start_tracing(settings.traces_url, "worker")
    except TracingUnavailable as error:
        _refuse(error)
    return create_worker(settings, requests, tracing)


app = _create_app()
