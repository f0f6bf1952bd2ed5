"""Our queue message is what Celery itself would publish."""

import orjson
from celery import Celery
from kombu.transport import memory

from contract import keys
from contract.messages import VERSION
from contract.queue_messages import (
    Claim,
    Origin,
    decode_message,
    message_fields,
    request_id_of,
    task_message,
)

# What Celery fills in by chance or by machine, and kombu's copy of the two reprs.
BY_CHANCE = {"origin"}, {"reply_to", "argsrepr", "kwargsrepr"}


def published_by_celery(monkeypatch, task_id: str, num_bytes: int, priority: int) -> dict:
    published = []
    monkeypatch.setattr(
        memory.Channel, "_put", lambda _, __, message, **___: published.append(message)
    )
    app = Celery("test", broker="memory://")
    app.send_task(
        keys.TASK,
        task_id=task_id,
        headers={"cost": num_bytes, "fingerprint": keys.UNBOUND, "version": str(VERSION)},
        priority=priority,
        argsrepr="-",
        kwargsrepr="-",
        queue=keys.QUEUE,
        ignore_result=False,
    )
    app.close()
    return published[0]


def test_message_equals_that_of_celery(monkeypatch):
    theirs = published_by_celery(monkeypatch, "the-id", 17, keys.BULK)
    ours = orjson.loads(task_message("the-id", 17, keys.BULK))
    theirs["properties"]["delivery_tag"] = "the-id"
    for part, by_chance in zip(("headers", "properties"), BY_CHANCE, strict=True):
        for name in by_chance:
            ours[part].pop(name, None)
            theirs[part].pop(name, None)
    assert ours == theirs


def test_message_names_the_request_and_the_time_of_its_job():
    origin = Origin("r-1", 1769860800.25)
    raw = task_message("the-id", 17, keys.BULK, origin=origin)
    assert decode_message(raw) == Claim("the-id", 17, keys.BULK, origin=origin)
    assert request_id_of(raw) == "r-1"


def test_message_without_an_origin_has_no_field_for_it():
    assert (
        message_fields("the-id", 17, keys.BULK)["headers"]
        .keys()
        .isdisjoint({"request_id", "submitted_at"})
    )


def test_request_id_is_found_in_a_message_that_names_no_job():
    assert request_id_of(b'{"headers": {"request_id": "r-1"}}') == "r-1"
    for raw in (b"", b"[1]", b'{"headers": 1}', b'{"headers": {"request_id": "a text"}}'):
        assert request_id_of(raw) == ""
