"""Builds the Flask application."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin

from app.openapi.document import EXTENSION as DESCRIPTION
from app.openapi.document import Description
from app.requests import access
from app.requests.body import release_body
from app.responses.problems import STATUS_BY_CODE, register_error_handlers
from app.routes import (
    batches,
    completions,
    docs,
    events,
    files,
    health,
    jobs,
    metrics,
    models,
    openai_batches,
    openapi,
    pages,
    tokenizer,
)
from app.routes.assets import Assets, asset_routes
from app.server import origins, request_log
from app.service.body_memory import BodyMemory
from app.service.components import EXTENSION, Service
from app.service.key_ring import KeyRing
from app.service.metrics.registry import Metrics
from app.service.recent_workers import RecentWorkers
from app.service.retry_after import RetryEstimate
from app.service.served_models import ServedModels
from app.service.slots import ConnectionSlots
from app.service.turns import LargeWork
from app.service.waiting import ChangeListener
from contract.settings import Settings
from contract.store.batches.batch_store import BatchStore
from contract.store.batches.file_store import FileStore
from contract.store.connection.broker import connect
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.script_runner import ScriptRunner
from contract.store.jobs.job_store import JobStore
from contract.store.overview import OverviewReader

if TYPE_CHECKING:
    from contract.otel import Tracing


class NoSessions(SessionInterface):
    """Gives every request the same empty session: no route uses sessions."""

    def __init__(self) -> None:
        self._none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the empty session, which refuses to be written."""
        return self._none

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Keep nothing; Flask does not ask for it."""


class Application(Flask):
    """A Flask application without sessions, whose views all are plain functions."""

    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: Flask would look at each function again, several times per request."""
        return func


def create_app(settings: Settings, tracing: "Tracing | None" = None) -> Flask:
    """The web application; it starts without Redis, which it needs only to answer.

    Args:
        tracing: makes the spans of requests; None where traces are off.
    """
    app = Application("app", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.extensions[EXTENSION] = create_service(settings, tracing)
    # First, so that it logs and counts what the next one refuses.
    request_log.register(app)
    origins.register(app, settings)
    access.register(app)
    register_error_handlers(app)
    pages.register_error_pages(app)
    app.teardown_request(lambda _: release_body())
    for routes in (
        jobs.routes,
        batches.routes,
        events.routes,
        completions.routes,
        files.routes,
        openai_batches.routes,
        models.routes,
        tokenizer.routes,
        health.routes,
        metrics.routes,
        openapi.routes,
        pages.routes,
        docs.routes,
        asset_routes(Assets.load()),
    ):
        app.register_blueprint(routes)
    app.extensions[DESCRIPTION] = Description(app)
    return app


def create_service(settings: Settings, tracing: "Tracing | None" = None) -> Service:
    """The components that the routes share, on the Redis of `settings`."""
    client = connect(settings)
    scripts = ScriptRunner(client)
    guard = BrokerGuard(on_lost=scripts.drop_idle)
    jobs = JobStore(client, settings, guard, scripts)
    batches = BatchStore(client, settings, jobs, guard)
    overview = OverviewReader(client, settings, guard)
    workers = RecentWorkers(jobs, settings)
    changes = ChangeListener(settings, jobs)
    uploads = ConnectionSlots(settings.max_uploads, "uploads")
    streams = ConnectionSlots(settings.max_streams, "event streams")
    slots = {"wait": changes.slots, "stream": streams, "upload": uploads}
    return Service(
        settings=settings,
        jobs=jobs,
        batches=batches,
        files=FileStore(client, settings, jobs, guard),
        overview=overview,
        changes=changes,
        workers=workers,
        models=ServedModels(workers, settings.served_name),
        key_ring=KeyRing(client, settings),
        retry=RetryEstimate(workers),
        metrics=Metrics(overview, slots, STATUS_BY_CODE),
        uploads=uploads,
        streams=streams,
        bodies=BodyMemory(settings.max_bodies_bytes, "Request bodies"),
        answers=BodyMemory(settings.max_bodies_bytes, "Answers"),
        large_work=LargeWork(),
        tracing=tracing,
    )
