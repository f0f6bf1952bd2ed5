"""The API's description as it is served: at hand without a network, true of what is answered."""

import re

import pytest

from app.responses.models import JobView

MARK = re.compile(r"""(?:src|href|url)\s*[=:(]\s*["']?(https?:)?//""")


def test_description_is_served_as_json(http):
    response = http.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert "/score" in response.json()["paths"]


def test_path_without_its_slash_leads_to_the_page(http):
    response = http.get("/docs", follow_redirects=True)
    assert response.status_code == 200
    assert response.url.path == "/docs/"


def test_page_loads_everything_from_this_server(http):
    page = http.get("/docs/").text
    assert not MARK.search(page)
    assets = re.findall(r"""(?:src|href)="([^"]+)\"""", page)
    assert len(assets) >= 4
    for path in assets:
        assert http.get(path).status_code == 200, path
    (script,) = (path for path in assets if path.endswith("/docs.js"))
    assert "validatorUrl: null" in http.get(script).text


def test_page_names_no_host(http):
    page = http.get("/docs/", headers={"Host": "127.0.0.1:1"}).text
    assert "127.0.0.1" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/docs/nothing.js",
        "/docs/oauth2-redirect.html",
        "/docs/index.html",
        "/docs/../../etc/passwd",
        "/docs/%2e%2e/x",
    ],
)
def test_page_serves_nothing_but_its_assets(http, path):
    assert http.get(path).status_code == 404


def test_answers_are_as_described(http, outcomes):
    response = http.post("/score", json={"text": "x"})
    JobView.model_validate(response.json())
    task_id = response.json()["id"]
    JobView.model_validate(http.post(f"/score/{task_id}/cancel").json())
