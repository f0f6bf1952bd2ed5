"""`GET /metrics`: what Prometheus reads of requests, queue and workers."""

import platform
from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract import __version__, keys
from contract.errors import PoisonJob, ScoringFailed
from contract.histogram import Histogram
from contract.worker_status import stage_name
from model import SliceScores
from tests.conftest import wait_until
from tests.proxy import Proxy
from tests.waiting_messages import EXPRESS
from tests.web import Outcomes, WebServer
from worker.recovery.dead_workers import take_over
from worker.scoring.outcomes import lost_ending, open_job, scored_ending

MARK = "zanzibar"


def scrape(http: httpx.Client) -> Mapping[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    response = http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def pose_as_worker(outcomes: Outcomes) -> None:
    """Hold a lease like a worker that has scored three batches."""
    batch_texts = Histogram((1.0, 4.0))
    for num_texts in (1, 3, 9):
        batch_texts.observe(num_texts)
    outcomes.pose_as_worker(
        {
            "name": "worker@here",
            "state": "busy",
            "num_texts": 13,
            "bytes_per_s": 500.0,
            "histograms": {"batch_texts": batch_texts},
        }
    )


def test_queue_and_ended_jobs_are_reported(http, outcomes):
    outcomes.client.flushdb()
    ids = [http.post("/score", json={"text": text}).json()["id"] for text in ("a", "bc", "def")]
    outcomes.succeed(ids[0], {})
    samples = scrape(http)
    assert samples["evascore_queue_jobs",] == 2
    assert samples["evascore_queue_bytes",] == 5
    assert samples["evascore_jobs_total", "succeeded"] == 1
    # Told before the first of its kind, or its first step would go unnoticed.
    assert samples["evascore_jobs_total", "failed"] == 0
    assert samples["evascore_redis_up",] == 1


def test_dead_letters_are_reported_by_kind(http, outcomes):
    outcomes.client.flushdb()
    assert scrape(http)["evascore_dead_letters", "payload"] == 0
    for kind in ("message", "message", "payload"):
        outcomes.store.set_aside(kind, "not_json", num_bytes=1)
    samples = scrape(http)
    assert samples["evascore_dead_letters", "message"] == 2
    assert samples["evascore_dead_letters", "payload"] == 1
    assert samples["evascore_parked_jobs",] == 0


def test_batches_are_reported_by_status_and_lines_by_outcome(http, outcomes):
    outcomes.client.flushdb()
    headers = {"Content-Type": "application/x-ndjson"}
    lines = '{"text": "ab"}\n{"text": ""}\n'
    for _ in range(2):
        http.post("/batches?on_error=skip", content=lines, headers=headers).raise_for_status()
    outcomes.score_next_part()
    samples = scrape(http)
    assert samples["evascore_bulk_batches", "in_progress"] == 1
    assert samples["evascore_bulk_batches", "cancelling"] == 0
    assert samples["evascore_bulk_lines",] == 2
    # Each of the two lines counts as at least 64 bytes of work.
    assert samples["evascore_bulk_bytes",] == 128
    assert samples["evascore_bulk_ended_batches_total", "completed"] == 1
    assert samples["evascore_bulk_ended_lines_total", "completed"] == 1
    assert samples["evascore_bulk_ended_lines_total", "failed"] == 1


def test_workers_are_reported_with_their_batches(http, outcomes):
    outcomes.client.flushdb()
    pose_as_worker(outcomes)
    samples = scrape(http)
    assert samples["evascore_workers", "busy"] == 1
    assert samples["evascore_workers", "ready"] == 0
    assert samples["evascore_texts_total", "worker@here"] == 13
    assert samples["evascore_bytes_per_second", "worker@here"] == 500
    assert [
        samples["evascore_batch_texts_bucket", bound, "worker@here"]
        for bound in ("1.0", "4.0", "+Inf")
    ] == [1, 2, 3]
    assert samples["evascore_batch_texts_sum", "worker@here"] == 13
    assert samples["evascore_batch_texts_count", "worker@here"] == 3


def test_stall_is_reported_only_while_work_waits(http, outcomes):
    outcomes.client.flushdb()
    status = {"silent_s": 400.0, "unstored_s": 31.5, "refused_endings": {"slow": 3}}
    outcomes.pose_as_worker({"name": "w", **status})
    samples = scrape(http)
    assert samples["evascore_stalled_seconds",] == 0
    assert samples["evascore_unstored_seconds",] == 31.5
    assert samples["evascore_refused_endings_total", "slow", "w"] == 3
    assert samples["evascore_refused_endings_total", "disk", "w"] == 0
    http.post("/score", json={"text": "waits"})
    assert scrape(http)["evascore_stalled_seconds",] == 400


def test_silence_of_each_ready_worker_is_reported(http, outcomes):
    outcomes.client.flushdb()
    for name, silent_s in (("hangs", 200.0), ("works", 0.1), ("of an older release", None)):
        outcomes.pose_as_worker({"name": name, "silent_s": silent_s})
    outcomes.pose_as_worker({"name": "starts", "state": "starting", "silent_s": 90.0})
    http.post("/score", json={"text": "waits"})
    samples = scrape(http)
    silences = {
        name: value
        for (metric, *labels), value in samples.items()
        if metric == "evascore_worker_silent_seconds"
        for name in labels
    }
    assert silences == {"hangs": 200.0, "works": 0.1}


def test_room_of_redis_is_reported(http, outcomes, web):
    outcomes.client.flushdb()
    before = scrape(http)
    assert before["evascore_promised_bytes",] == 0
    assert before["evascore_redis_limit_bytes",] == web.settings.max_redis_bytes
    assert before["evascore_redis_bytes",] > 100_000
    task = http.post("/score", json={"text": "x" * 1000, "outputs": ["bytes"]}).json()
    assert scrape(http)["evascore_promised_bytes",] > 20_000
    outcomes.succeed(task["id"], {})
    assert scrape(http)["evascore_promised_bytes",] == 0


@pytest.mark.parametrize(
    ("method", "path", "counted"),
    [
        ("GET", "/info", ("GET", "/info", "200")),
        ("GET", f"/score/{MARK}", ("GET", "/score/<task_id>", "404")),
        ("GET", f"/{MARK}?{MARK}={MARK}", ("GET", "none", "404")),
        (MARK.upper(), "/info", ("other", "none", "405")),
    ],
)
def test_requests_are_counted_under_names_that_no_client_chose(http, method, path, counted):
    sample = ("evascore_http_requests_total", *counted)
    before = scrape(http).get(sample, 0)
    http.request(method, path)
    assert scrape(http)[sample] == before + 1
    assert MARK not in http.get("/metrics").text.lower()


def test_time_of_requests_is_reported_by_route(http):
    http.get("/healthz")
    assert scrape(http)["evascore_http_request_seconds_count", "/healthz"] >= 1


def test_metrics_are_reported_while_redis_is_away(tmp_path):
    server = WebServer(tmp_path, "redis://127.0.0.1:1/0").start()
    try:
        with server.client() as http:
            samples = scrape(http)
    finally:
        server.stop()
    assert samples["evascore_redis_up",] == 0
    assert ("evascore_queue_jobs",) not in samples


def test_redis_that_takes_no_writes_is_reported_with_all_that_it_holds(http, outcomes):
    outcomes.client.flushdb()
    outcomes.pose_as_worker({"name": "w"})
    http.post("/score", json={"text": "waits"}).raise_for_status()
    before = scrape(http)
    assert before["evascore_redis_writable",] == 1
    assert http.get("/readyz").status_code == 200
    # A batch that has expired, which a scrape would forget.
    outcomes.client.hset(keys.LIVE_BATCHES, "expired", 100)
    outcomes.client.config_set("min-replicas-to-write", 1)
    try:
        during, ready, stats = scrape(http), http.get("/readyz"), http.get("/stats")
    finally:
        outcomes.client.config_set("min-replicas-to-write", 0)
    assert during["evascore_redis_writable",] == 0
    assert during["evascore_redis_up",] == 1
    assert during["evascore_queue_jobs",] == 1
    assert before.keys() <= during.keys()
    assert ready.json()["type"] == "broker_unavailable"
    assert "Redis refuses writes (it is read-only" in ready.json()["detail"]
    assert stats.json()["batches"]["batches"] == 1
    # Forgotten once Redis takes writes again.
    assert scrape(http)["evascore_bulk_batches", "in_progress"] == 0


def test_time_of_reading_a_slow_redis_is_reported(tmp_path, outcomes, web):
    proxy = Proxy(outcomes.client.connection_pool.connection_kwargs["port"])
    server = WebServer(tmp_path, proxy.url).start()
    try:
        with server.client() as http:
            assert scrape(http)["evascore_redis_read_seconds",] < 60
            # Of each direction, in two round trips.
            proxy.delay(0.3)
            samples = scrape(http)
    finally:
        server.stop()
        proxy.close()
    assert samples["evascore_redis_read_seconds",] >= 1.2
    assert samples["evascore_redis_up",] == 1
    assert samples["evascore_queue_jobs",] >= 0


def test_age_of_the_oldest_waiting_job_is_reported_by_priority(http, outcomes):
    outcomes.client.flushdb()
    empty = scrape(http)
    assert empty["evascore_oldest_waiting_seconds", "interactive"] == 0
    http.post("/score", json={"text": "waits"}).raise_for_status()
    wait_until(lambda: scrape(http)["evascore_oldest_waiting_seconds", "interactive"] > 0.05)
    assert scrape(http)["evascore_oldest_waiting_seconds", "bulk"] == 0


def test_failed_jobs_are_reported_by_code(http, outcomes):
    outcomes.client.flushdb()
    task_id = http.post("/score", json={"text": "a"}).json()["id"]
    ending = lost_ending(task_id, outcomes.store.facts(task_id), PoisonJob("no", num_crashes=3))
    outcomes.store.conclude([ending])
    samples = scrape(http)
    assert samples["evascore_failed_jobs_total", "poison_job"] == 1
    assert samples["evascore_failed_jobs_total", "job_lost"] == 0
    assert samples["evascore_jobs_total", "failed"] == 1


def test_lines_of_a_batch_that_fail_are_reported_by_code_although_their_part_succeeds(
    http, outcomes
):
    outcomes.client.flushdb()
    headers = {"Content-Type": "application/x-ndjson"}
    lines = '{"text": "a"}\n{"text": ""}\n{"text": "b"}\n{"text": "c"}\n'
    batch = http.post("/batches?on_error=skip", content=lines, headers=headers).json()
    assert scrape(http)["evascore_failed_texts_total", "scoring_failed"] == 0

    (opened,) = outcomes.store.open_jobs([f"{batch['id']}.0"])
    part = open_job(
        *(opened.task_id, opened.job),
        **{"num_crashes": 0, "max_slice_bytes": 100, "max_text_bytes": 50, "window_size": 16},
    )
    part.outcomes += [SliceScores({"num_bytes": 1}), *[ScoringFailed("no")] * 2]
    outcomes.store.conclude([scored_ending(part, {"name": "m", "fingerprint": keys.UNBOUND})])

    samples = scrape(http)
    assert samples["evascore_failed_texts_total", "scoring_failed"] == 2
    assert ("evascore_failed_texts_total", "empty_text") not in samples
    assert samples["evascore_jobs_total", "succeeded"] == 1
    assert samples["evascore_bulk_ended_lines_total", "failed"] == 3


def test_jobs_of_a_worker_that_died_while_scoring_are_reported(http, outcomes):
    outcomes.client.flushdb()
    assert scrape(http)["evascore_redelivered_jobs_total", "lost"] == 0
    task_id = http.post("/score", json={"text": "a"}).json()["id"]
    message = outcomes.client.rpop(keys.waiting(keys.UNBOUND, keys.INTERACTIVE, EXPRESS))
    unacked = keys.unacked("dead"), keys.unacked_index("dead")
    outcomes.client.hset(unacked[0], task_id, b"[" + message + b', "", "evascore"]')
    outcomes.client.zadd(unacked[1], {task_id: 1})
    outcomes.store.note_aboard([task_id], "dead")
    take_over(outcomes.client, "dead")
    take_over(outcomes.client, "dead")
    samples = scrape(http)
    assert samples["evascore_redelivered_jobs_total", "lost"] == 1
    assert samples["evascore_redelivered_jobs_total", "returned"] == 0
    assert samples["evascore_worker_deaths_total",] == 1


def test_worker_that_starts_again_and_again_is_reported_beside_others_that_start_once(
    http, outcomes
):
    outcomes.client.flushdb()
    for name in ("a", "b", "c", "loops", "loops", "loops"):
        outcomes.store.note_started(name)
    assert scrape(http)["evascore_worker_restarts_total",] == 0
    outcomes.store.note_started("loops")
    outcomes.store.note_started("loops")
    assert scrape(http)["evascore_worker_restarts_total",] == 2
    # One that starts again after a longer time does not count.
    assert 3500 < outcomes.client.ttl(keys.starts("loops")) <= 3600


def test_lost_worker_is_reported_by_name_beside_another(http, outcomes):
    outcomes.client.flushdb()
    pose_as_worker(outcomes)
    outcomes.client.sadd(keys.WORKERS, "gone@host")
    lost = {key: value for key, value in scrape(http).items() if key[0] == "evascore_worker_lost"}
    assert lost == {("evascore_worker_lost", "gone@host"): 1}


def test_drifted_model_is_reported_although_another_worker_works(http, outcomes):
    outcomes.client.flushdb()
    pose_as_worker(outcomes)
    assert scrape(http)["evascore_model_drifted",] == 0
    outcomes.store.note_model_drifted("other")
    assert scrape(http)["evascore_model_drifted",] == 1


def test_refusals_are_reported_by_code(http):
    def count(code: str) -> float:
        return scrape(http)["evascore_http_problems_total", code]

    before = count("empty_text"), count("route_not_found")
    http.post("/score", json={"text": ""})
    http.get(f"/{MARK}")
    http.get("/healthz")
    assert (count("empty_text"), count("route_not_found")) == (before[0] + 1, before[1] + 1)


def test_files_of_redis_and_the_last_backup_are_reported(http, outcomes):
    outcomes.client.flushdb()
    samples = scrape(http)
    assert [samples["evascore_redis_persistence_ok", step] for step in ("on", "write")] == [1, 1]
    assert samples["evascore_redis_file_bytes",] >= 0
    assert samples["evascore_redis_resident_bytes",] > 100_000
    assert samples["evascore_redis_maxmemory_bytes",] == outcomes.client.info()["maxmemory"]
    assert ("evascore_last_backup_timestamp_seconds",) not in samples
    outcomes.client.set(keys.LAST_BACKUP, 0)
    assert scrape(http)["evascore_last_backup_timestamp_seconds",] == 0
    outcomes.client.set(keys.LAST_BACKUP, 1769860800)
    assert scrape(http)["evascore_last_backup_timestamp_seconds",] == 1769860800


def test_a_redis_that_evicts_keys_is_reported(http, outcomes):
    def keeps_keys() -> float:
        return scrape(http)["evascore_redis_persistence_ok", "eviction"]

    assert keeps_keys() == 1
    outcomes.client.config_set("maxmemory-policy", "volatile-lru")
    try:
        assert keeps_keys() == 0
    finally:
        outcomes.client.config_set("maxmemory-policy", "noeviction")


def test_stages_memory_and_model_of_a_worker_are_reported(http, outcomes):
    outcomes.client.flushdb()
    stage = Histogram((1.0, 4.0))
    stage.observe(3)
    outcomes.pose_as_worker(
        {
            "name": "w",
            "batch_bytes": 512,
            "release": "0.2.0",
            "histograms": {stage_name("queue", "bulk"): stage},
            "num_halvings": 2,
            "gpu": {"used_bytes": 7, "total_bytes": 9, "utilization": 0.5},
            "model": {"name": "small", "fingerprint": "0" * 12, "dtype": "float32"},
        }
    )
    samples = scrape(http)
    labels = {"priority": "bulk", "stage": "queue", "worker": "w"}.values()
    assert samples["evascore_stage_seconds_bucket", "4.0", *labels] == 1
    assert samples["evascore_stage_seconds_sum", *labels] == 3
    assert samples["evascore_out_of_memory_halvings_total", "w"] == 2
    assert samples["evascore_micro_batch_limit_bytes", "w"] == 512
    assert samples["evascore_gpu_used_bytes", "w"] == 7
    assert samples["evascore_gpu_total_bytes", "w"] == 9
    assert samples["evascore_gpu_utilization_ratio", "w"] == 0.5
    info = ("", "", "float32", "0" * 12, "small", "", "0.2.0", "w")
    assert samples["evascore_model_info", *info] == 1


def test_worker_of_a_release_without_the_field_is_reported_without_a_release(http, outcomes):
    outcomes.client.flushdb()
    outcomes.pose_as_worker({"name": "w", "model": {"name": "small"}})
    assert scrape(http)["evascore_model_info", "", "", "", "", "small", "", "", "w"] == 1


def test_release_of_the_web_server_is_reported(http):
    assert scrape(http)["evascore_build_info", platform.python_version(), __version__] == 1
