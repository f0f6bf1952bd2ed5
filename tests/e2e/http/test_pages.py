"""The pages over HTTP: who gets which form, what a browser must refuse, what may be cached."""

import re

import pytest

from app.responses.models import Index, Stats
from contract.histogram import Histogram
from tests.web import Outcomes

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
STATUS = {
    "name": "w",
    "pid": 1,
    "started_at": 1_769_860_800.25,
    "state": "ready",
    "model": {"name": "demo"},
    "num_batches": 3,
    "num_texts": 7,
    "num_bytes": 1000,
    "bytes_per_s": 500.0,
    "recent_batches": [[1, 100, 10.0], [4, 700, 50.0], [2, 200, 15.0]],
    "histograms": {"batch_texts": Histogram((4.0,), [3, 0], 7.0)},
    "recent_latencies_ms": [50.0, 10.0, 20.0, 40.0, 30.0],
}

NOTHING_SCORED = {
    "state": "starting",
    **dict.fromkeys(("num_batches", "num_texts", "num_bytes"), 0),
    **dict.fromkeys(("model", "bytes_per_s")),
    **{"recent_batches": [], "recent_latencies_ms": []},
}


@pytest.fixture
def idle(outcomes: Outcomes) -> Outcomes:
    """A Redis that knows of nothing."""
    outcomes.client.flushdb()
    return outcomes


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0.1, */*"])
def test_programs_get_links(http, accept):
    headers = {} if accept is None else {"Accept": accept}
    index = Index.model_validate(http.get("/", headers=headers).json())
    for path in index.links.values():
        assert http.request("OPTIONS", path).status_code == 200, path


def test_browsers_get_the_page(http):
    response = http.get("/", headers={"Accept": BROWSER})
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Accept" in response.headers["Vary"]
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/status", "/docs/"])
def test_policy_has_the_browser_refuse_all_but_our_own_files(http, path):
    headers = http.get(path, headers={"Accept": BROWSER}).headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
        "require-trusted-types-for": "'script'",
        # The icons in Swagger UI's style sheet.
        **({"img-src": "'self' data:"} if path == "/docs/" else {}),
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/status", "/docs/"])
def test_page_has_nothing_inline_and_nothing_from_elsewhere(http, path):
    page = http.get(path, headers={"Accept": BROWSER}).text
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:|<script>", page)
    assert not re.search(r"""(?:src|href)="(?:https?:)?//""", page)


def test_files_are_kept_for_ever_under_a_path_that_names_their_content(http):
    page = http.get("/", headers={"Accept": BROWSER}).text
    files = set(re.findall(r"""(?:src|href)="(/static/[^"]+)\"""", page))
    assert {path.rpartition(".")[2] for path in files} == {"css", "js", "svg"}
    for path in files:
        response = http.get(path)
        assert response.status_code == 200, path
        assert "immutable" in response.headers["Cache-Control"]
    (version,) = {path.split("/")[2] for path in files}
    assert re.fullmatch("[0-9a-f]{16}", version)


def test_scripts_name_only_scripts_that_are_there(http):
    version = re.search(r"/static/(\w+)/", http.get("/status").text)[1]
    unread, read = {"score.js", "status.js"}, set()
    while unread:
        name = unread.pop()
        response = http.get(f"/static/{version}/{name}")
        assert response.status_code == 200, name
        assert response.headers["Content-Type"].startswith("text/javascript")
        read.add(name)
        unread |= set(re.findall(r'from "\./([^"]+)"', response.text)) - read
    assert len(read) > 5


@pytest.mark.parametrize("path", ["/static/0/score.js", "/static/{v}/x.js", "/static/{v}/../x"])
def test_what_is_no_file_of_this_version_is_not_found(http, path):
    version = re.search(r"/static/(\w+)/", http.get("/status").text)[1]
    response = http.get(path.format(v=version))
    assert (response.status_code, response.json()["type"]) == (404, "route_not_found")


def test_stats_sum_up_the_recent_work_of_all_workers(http, idle):
    idle.pose_as_worker(STATUS)
    idle.pose_as_worker({**STATUS, "name": "v", "recent_latencies_ms": [1000.0]})
    recent = Stats.model_validate(http.get("/stats").json()).recent
    assert recent.model_dump() == {
        "bytes_per_s": 1000.0,
        "num_batches": 6,
        "mean_batch_texts": 2.3,
        "mean_batch_bytes": 333.3,
        "mean_batch_ms": 25.0,
        "num_latencies": 6,
        "latency_p50_ms": 30.0,
        "latency_p95_ms": 1000.0,
    }


def test_stats_claim_nothing_of_recent_work_without_any(http, idle):
    recent = http.get("/stats").json()["recent"]
    assert (recent["num_batches"], recent["num_latencies"]) == (0, 0)
    assert recent["latency_p50_ms"] is recent["bytes_per_s"] is recent["mean_batch_ms"] is None


def test_status_is_readable_without_scripts(http, idle):
    idle.pose_as_worker(STATUS)
    http.post("/score", json={"text": "x" * 1234})
    page = re.sub(r"<[^>]+>|\s+", " ", http.get("/status").text)
    page = re.sub(r"\s+", " ", page)
    for shown in ("1,234 bytes", "500 bytes/s", "30 ms", "2.3 texts", "w ready demo 500 3 7 2.3"):
        assert shown in page, shown


def test_status_shows_a_worker_that_has_scored_nothing(http, idle):
    idle.pose_as_worker({**STATUS, **NOTHING_SCORED})
    page = re.sub(r"<[^>]+>", " ", http.get("/status").text)
    assert "w starting – – 0 0 –" in re.sub(r"\s+", " ", page)


def test_status_escapes_what_a_worker_tells(http, idle):
    idle.pose_as_worker({**STATUS, "name": "<script>alert(1)</script>"})
    assert "<script>alert" not in http.get("/status").text
