"""Builds the Flask application."""

from flask import Flask

from app.responses.problems import register_error_handlers
from app.routes import (
    batches,
    completions,
    events,
    health,
    jobs,
    metrics,
    openapi,
    pages,
    tokenizer,
)
from app.routes.assets import Assets, asset_routes
from app.server import request_log
from app.service.parts import EXTENSION, Service
from app.service.progress import Pace
from app.service.prometheus import Metrics
from app.service.retry_after import Capacity
from app.service.slots import Places
from app.service.waiting import JobEndings
from contract.settings import Settings
from contract.store.batch_store import BatchStore
from contract.store.broker import connect
from contract.store.broker_guard import BrokerGuard
from contract.store.job_store import JobStore


def create_app(settings: Settings) -> Flask:
    """The web application; it needs no Redis to start, only to answer."""
    app = Flask("app", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    app.extensions[EXTENSION] = create_service(settings)
    request_log.register(app)
    register_error_handlers(app)
    for routes in (
        jobs.routes,
        batches.routes,
        events.routes,
        completions.routes,
        tokenizer.routes,
        health.routes,
        metrics.routes,
        openapi.routes,
        pages.routes,
        pages.docs_routes(),
        asset_routes(Assets.load()),
    ):
        app.register_blueprint(routes)
    return app


def create_service(settings: Settings) -> Service:
    """The parts that the routes share, on the Redis of `settings`."""
    client, guard = connect(settings), BrokerGuard()
    store = JobStore(client, settings, guard)
    batches = BatchStore(client, settings, store, guard)
    return Service(
        settings=settings,
        store=store,
        capacity=Capacity(store),
        endings=JobEndings(settings, store),
        metrics=Metrics(store, batches),
        batches=batches,
        pace=Pace(),
        uploads=Places(settings.max_uploads, "uploads"),
        streams=Places(settings.max_streams, "event streams"),
    )
