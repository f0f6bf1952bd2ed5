"""JSON answers leave as werkzeug would send them."""

import pytest
from flask import Response
from werkzeug.test import create_environ, run_wsgi_app

from app.responses.json import JsonResponse, json_response


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 202, 204, 304, 503])
@pytest.mark.parametrize("location", [None, "/score/abc-1.~_", "/score/é x", "?a=1"])
def test_answer_is_that_of_werkzeug(method, status, location):
    headers = {"Retry-After": "1"} | ({"Location": location} if location else {})
    found, expected = (
        run_wsgi_app(
            kind(b'{"a":1}\n', status, headers=headers, content_type="application/json"),
            create_environ(method=method),
        )
        for kind in (JsonResponse, Response)
    )
    assert b"".join(found[0]) == b"".join(expected[0])
    assert found[1] == expected[1]
    assert sorted(found[2]) == sorted(expected[2])


def test_what_has_to_be_done_at_the_end_is_done():
    done = []
    response = json_response({"a": 1})
    response.call_on_close(lambda: done.append(True))
    pieces, _, _ = run_wsgi_app(response, create_environ(), buffered=True)
    assert (list(pieces), done) == ([b'{"a":1}\n'], [True])
