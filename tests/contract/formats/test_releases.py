"""What one release writes, its neighbours read; a newer major version is refused."""

from functools import partial

import orjson
import pytest
import zstandard

from contract import keys
from contract.batches import (
    Part,
    decode_part,
    decode_part_payload,
    encode_part_payload,
    ended_part,
)
from contract.messages import (
    VERSION,
    Job,
    Record,
    decode_payload,
    decode_record,
    encode_payload,
    queued_record,
)
from contract.queue_messages import Claim, decode_message, task_message
from contract.versions import NewerFormat, Unreadable

JOB = Job(
    [{"text": "café", "outputs": ["bytes"]}],
    *(5, 1769860800.25, 1769861400.25, True, 0, "r-1"),
    # Release 0.1 cannot read a result that is stored apart from its record.
    may_store_apart=False,
)
FACTS = {
    **{"num_texts": 1, "num_bytes": 5, "submitted_at": 1769860800.25},
    **{"deadline_at": 1769861400.25, "is_single": True, "priority": 0},
}
# Fields that 0.1.0 does not know.
ADDED = {
    **{"may_store_apart": False, "client": "", "model": "", "fingerprint": keys.UNBOUND},
    **{"is_pinned": False, "result_bytes": 0, "traceparent": ""},
}
# Release N: what 0.1.0 stored, before there were versions.
PAYLOAD = (
    '{"requests":[{"text":"café","outputs":["bytes"]}],"num_bytes":5,"submitted_at":1769860800.25,'
    '"deadline_at":1769861400.25,"is_single":true,"priority":0,"request_id":"r-1"}'
).encode()
RECORD = (
    b'{"status":"QUEUED","result":null,"traceback":null,"children":[],"date_done":null,'
    b'"task_id":"id","job":{"num_texts":1,"num_bytes":5,"submitted_at":1769860800.25,'
    b'"deadline_at":1769861400.25,"is_single":true,"priority":0},"finished_at":null}'
)
FAILED_RECORD = (
    b'{"status":"FAILURE","result":{"exc_type":"JobLost","exc_message":["gone"],"exc_module":'
    b'"contract.errors","code":"job_lost","message":"gone","retryable":true},"traceback":null,'
    b'"children":[],"date_done":null,"task_id":"id","job":{},"finished_at":1769860801.5}'
)
MESSAGE = (
    b'{"body":"W1tdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAi'
    b'Y2hvcmQiOiBudWxsfV0=","content-encoding":"utf-8","content-type":"application/json","headers":'
    b'{"lang":"py","task":"evascore.score","id":"id","shadow":null,"eta":null,"expires":null,'
    b'"group":null,"group_index":null,"retries":0,"timelimit":[null,null],"root_id":"id",'
    b'"parent_id":null,"argsrepr":"-","kwargsrepr":"-","origin":"evascore","ignore_result":false,'
    b'"replaced_task_nesting":0,"stamped_headers":null,"stamps":{},"cost":5},"properties":'
    b'{"correlation_id":"id","delivery_mode":2,"delivery_info":{"exchange":"","routing_key":'
    b'"evascore"},"priority":0,"body_encoding":"base64","delivery_tag":"id"}}'
)


def with_version(raw: bytes, version: object, where: str | None = None) -> bytes:
    """What a later release writes: a version and a field that this release does not know."""
    found = orjson.loads(raw)
    (found[where] if where else found).update(version=version, temperature={"nested": [71]})
    return orjson.dumps(found)


WRITTEN = {
    "payload": (PAYLOAD, decode_payload, JOB, None),
    "part": (zstandard.compress(PAYLOAD), decode_part_payload, JOB, None),
    "record": (RECORD, partial(decode_record, "id"), Record("id", "QUEUED", job=FACTS), None),
    "message": (MESSAGE, decode_message, Claim("id", 5, keys.INTERACTIVE), "headers"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_release_n_is_read(kind):
    raw, decode, expected, _ = WRITTEN[kind]
    assert decode(raw) == expected


@pytest.mark.parametrize("version", ["1.1", "1.99", "1", 1])
@pytest.mark.parametrize("kind", ["payload", "record", "message"])
def test_release_n_plus_1_is_read_without_the_fields_that_are_unknown(kind, version):
    raw, decode, expected, where = WRITTEN[kind]
    assert decode(with_version(raw, version, where)) == expected


@pytest.mark.parametrize("version", ["2.0", "11.3", 2])
@pytest.mark.parametrize("kind", ["payload", "record", "message"])
def test_newer_major_version_is_not_read(kind, version):
    raw, decode, _, where = WRITTEN[kind]
    with pytest.raises(NewerFormat) as newer:
        decode(with_version(raw, version, where))
    assert newer.value.major == int(float(version))


def test_newer_major_version_need_hold_nothing_else_that_is_known():
    for decode in (decode_payload, lambda raw: decode_record("id", raw)):
        with pytest.raises(NewerFormat):
            decode(b'{"version": "2.0"}')
    with pytest.raises(NewerFormat):
        decode_message(b'{"headers": {"version": "2.0"}}')


def test_release_n_finds_every_field_in_what_this_release_writes():
    written = {
        PAYLOAD: encode_payload(JOB),
        RECORD: queued_record("id", FACTS),
        MESSAGE: task_message("id", 5, keys.INTERACTIVE),
    }
    for theirs, ours in written.items():
        new = orjson.loads(ours)
        version = (new["headers"] if theirs == MESSAGE else new).pop("version")
        assert version == str(VERSION)
        if theirs == MESSAGE:
            assert new["headers"].pop("fingerprint") == keys.UNBOUND
        for added, value in ADDED.items():
            assert new.pop(added, value) == value
        assert new == orjson.loads(theirs)


def test_status_stays_where_the_scripts_of_release_n_look_for_it():
    assert queued_record("id", FACTS).startswith(b'{"status":"QUEUED"')


def test_failed_record_of_release_n_is_read():
    error = {"code": "job_lost", "message": "gone", "retryable": True}
    expected = Record("id", "FAILURE", error=error, finished_at=1769860801.5)
    assert decode_record("id", FAILED_RECORD) == expected


def test_part_of_a_later_release_is_read():
    assert decode_part(b"3:2:17:9:1") == ended_part(b"3:2:17:9:1") == Part(3, 2, 17, 9)


def test_part_of_an_earlier_release_is_read():
    assert decode_part(b"3:2:17") == Part(3, 2, 17)


@pytest.mark.parametrize("message", [b"", b"later"])
def test_message_that_names_no_part_may_tell_of_any_change(message):
    assert ended_part(message) is None


SECRET = "Xylographenkraehe"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not_json"),
        (SECRET.encode(), "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (f'["{SECRET}"]'.encode(), "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "wrong_fields"),
        (f'{{"status": "{SECRET}", "requests": 7, "headers": 7}}'.encode(), "wrong_fields"),
        (f'{{"version": "{SECRET}", "headers": {{"version": []}}}}'.encode(), "wrong_version"),
        (b'{"version": "9999999999.0", "headers": {"version": -1}}', "wrong_version"),
    ],
)
def test_what_cannot_be_read_is_refused_without_its_content(raw, reason):
    for decode in (decode_payload, lambda raw: decode_record("id", raw), decode_message):
        with pytest.raises(Unreadable) as refused:
            decode(raw)
        assert refused.value.reason == reason
        assert SECRET not in str(refused.value)
        assert refused.value.__cause__ is None


def test_part_that_is_not_compressed_is_refused():
    for raw in (PAYLOAD, encode_part_payload(JOB)[:-4], b""):
        with pytest.raises(Unreadable):
            decode_part_payload(raw)


def test_failed_record_in_celerys_own_form_is_that_of_a_revoked_job():
    record = decode_record("id", b'{"status": "REVOKED", "result": {"exc_type": "TaskRevoked"}}')
    assert record.error["code"] == "job_cancelled"


def test_failed_record_without_an_error_is_refused():
    with pytest.raises(Unreadable) as refused:
        decode_record("id", b'{"status": "FAILURE", "result": null}')
    assert refused.value.reason == "wrong_fields"
