"""A worker's status: what one release writes, this one and its neighbours read."""

import orjson
import pytest

from contract import keys
from contract.histogram import Histogram
from contract.worker_status import (
    GpuUse,
    NotAWorkerStatus,
    StartupStatus,
    WorkerStatus,
    decode_status,
)

STATUS = WorkerStatus(
    name="celery@a",
    batch_bytes=65536,
    startup=StartupStatus("load", {"import": 1.5, "redis": 0.25}),
    pass_bytes=131072,
    state="busy",
    model={"name": "small", "is_demo": False},
    num_batches=2,
    num_texts=5,
    num_bytes=46,
    bytes_per_s=2626.5,
    recent_batches=((3, 41, 12.5), (2, 5, 500.0)),
    recent_latencies_ms=(28.1, 100.0),
    num_halvings=1,
    gpu=GpuUse(7, 9, 0.5),
    histograms={"batch_texts": Histogram((1.0, 2.0), [0, 1, 1], 5.0)},
    silent_s=0.5,
    unstored_s=31.5,
    refused_endings={"slow": 2},
    release="0.2.0",
    host="a",
    pid=17,
    pid_namespace="boot pid:[1]",
    started_at=1769860800.25,
)
# What a worker of release 0.1.0 stored, before the status had a version.
PREVIOUS_RELEASE = (
    b'{"name":"celery@a","batch_bytes":65536,"startup":{"phase":null,"seconds":{"import":1.5,'
    b'"redis":0.0,"load":0.0}},"pass_bytes":131072,"state":"ready","model":{"name":"small",'
    b'"revision":"5f0c1d2e","quantization":"none","dtype":"float32","backend":"reference",'
    b'"is_demo":false},"num_batches":2,"num_texts":4,"num_bytes":46,"bytes_per_s":2626.0,'
    b'"recent_batches":[[3,41,12.5],[1,5,500.0]],"recent_latencies_ms":[28.1,100.0],'
    b'"histograms":{"batch_texts":{"bounds":[1.0,2.0,4.0,8.0,16.0,32.0,64.0,128.0,256.0],'
    b'"counts":[1,0,1,0,0,0,0,0,0,0],"sum":4.0},"inference_s":{"bounds":[0.01,0.025,0.05,0.1,'
    b'0.25,0.5,1.0,2.5,5.0,10.0,30.0,100.0,300.0],"counts":[0,1,0,0,0,1,0,0,0,0,0,0,0,0],'
    b'"sum":0.5125}},"host":"a","pid":17,"started_at":1769860800.25,"mean_batch_texts":2.0}'
)


def test_status_comes_back_as_it_was_written():
    assert orjson.dumps(decode_status(STATUS.encode())) == orjson.dumps(STATUS)


def test_status_says_its_version():
    assert orjson.loads(STATUS.encode())["version"] == 1
    assert "version" not in STATUS.as_json()


def test_status_of_the_previous_release_is_read_whole():
    shown = orjson.loads(orjson.dumps(decode_status(PREVIOUS_RELEASE).as_json()))
    theirs = orjson.loads(PREVIOUS_RELEASE)
    assert {name: shown[name] for name in theirs} == theirs
    assert shown["release"] is None


def test_previous_release_finds_every_field_that_it_knows():
    ours = orjson.loads(STATUS.encode())
    theirs = orjson.loads(PREVIOUS_RELEASE)
    assert theirs.keys() <= ours.keys()
    assert theirs["startup"].keys() == ours["startup"].keys()
    histograms = theirs["histograms"]["batch_texts"], ours["histograms"]["batch_texts"]
    assert histograms[0].keys() == histograms[1].keys()


def test_field_of_a_later_release_is_passed_over():
    later = {**orjson.loads(STATUS.encode()), "version": 2, "temperature": 71}
    later["startup"]["attempt"] = 3
    assert decode_status(orjson.dumps(later)) == decode_status(STATUS.encode())


def test_status_with_name_and_state_alone_is_read():
    status = decode_status(b'{"name": "w", "state": "starting"}')
    assert status == WorkerStatus(name="w", state="starting")
    assert (status.model_name, status.is_warm) == (None, False)


@pytest.mark.parametrize(
    ("state", "is_warm"),
    [("starting", False), ("ready", True), ("busy", True), ("draining", False)],
)
def test_worker_is_warm_while_it_takes_jobs(state, is_warm):
    assert WorkerStatus(name="w", state=state).is_warm == is_warm


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"", "not a JSON object"),
        (b"held", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"{}", "name, state"),
        (b'{"name": "w"}', "state"),
        (b'{"name": "w", "state": "asleep"}', "state"),
        (b'{"name": "w", "state": "ready", "startup": {"seconds": 3}}', "startup.seconds"),
    ],
)
def test_what_is_no_status_is_refused_by_the_names_of_its_fields(raw, wrong):
    with pytest.raises(NotAWorkerStatus) as refused:
        decode_status(raw)
    assert str(refused.value) == f"This is no worker status; wrong or missing: {wrong}."


def test_lease_that_cannot_be_read_hides_that_worker_alone(job_store, redis_client):
    for name, value in (("a", STATUS.encode()), ("b", b"held")):
        redis_client.sadd(keys.WORKERS, name)
        redis_client.set(keys.lease(name), value)
    redis_client.sadd(keys.WORKERS, "gone")
    assert [status.name for status in job_store.worker_statuses()] == ["celery@a"]
