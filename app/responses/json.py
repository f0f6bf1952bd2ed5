"""Makes JSON answers with orjson."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from flask import Response

_WITHOUT_BODY = frozenset({100, 101, 103, 204, 304})
# What a Location needs no encoding for.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._~-]*")


class JsonResponse(Response):
    """A JSON document in one piece, whose headers are as they are sent.

    Werkzeug would copy the headers and look at each of them.
    """

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a WSGI request."""
        is_plain = _PLAIN_PATH.fullmatch(self.headers.get("Location", ""))
        if not is_plain or self._on_close or self.status_code in _WITHOUT_BODY:
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.iter_encoded()


def json_response(
    body: Any,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """An answer whose body is `body` as JSON in UTF-8, on a line that ends, as a terminal needs.

    One whose size follows from what a client sent is counted by `held`.
    """
    line = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return JsonResponse(line, status, headers=headers, content_type=media_type)
