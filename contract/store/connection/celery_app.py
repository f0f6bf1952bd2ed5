"""Makes the Celery application that web tier, workers and Celery's own tools share."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery

from contract import keys
from contract.settings import Settings


def create_celery(settings: Settings, **overrides: Any) -> Celery:
    """The app without a task; broker and result backend are the same Redis.

    Args:
        overrides: Celery settings that replace ours; the worker adds its transport options.
    """
    url = celery_url(settings.redis)
    app = Celery("evascore", broker=url, backend=url)
    app.conf.update(
        task_default_queue=keys.QUEUE,
        task_acks_late=True,
        # A micro-batch takes what it needs from the queue; a prefetch limit would make it smaller.
        worker_prefetch_multiplier=0,
        worker_send_task_events=False,
        # A solo worker cannot end a running micro-batch, and its results are still wanted.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        # A worker without Redis waits for it, however long that takes.
        broker_connection_max_retries=None,
        # Nor does a refusal end it: a Redis that is full or read-only will work again.
        broker_channel_error_retry=True,
        broker_transport_options=transport_options(settings),
        redis_socket_timeout=settings.redis_timeout_s,
        redis_socket_connect_timeout=settings.redis_timeout_s,
        result_expires=settings.result_ttl_s,
        accept_content=["json"],
    )
    app.conf.update(overrides)
    return app


def celery_url(url: str) -> str:
    """`url` in the form of Celery, which has a scheme of its own for Unix sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    (database,) = parse_qs(parts.query).get("db", ["0"])
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"


def transport_options(settings: Settings) -> dict[str, Any]:
    """The transport options that every process on this broker must share."""
    return {
        "priority_steps": list(keys.PRIORITY_STEPS),
        "sep": keys.PRIORITY_SEPARATOR,
        "queue_order_strategy": "priority",
        # Leases trigger redelivery. Kombu's own, by age, must never do so before a job's deadline.
        "visibility_timeout": int(settings.max_deadline_s * 2),
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
    }
