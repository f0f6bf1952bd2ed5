"""Makes the answers that have no body."""

from flask import Response


def no_content() -> Response:
    """Return a 204; it has no media type, because nothing is there to have one."""
    response = Response(status=204)
    # Flask sets one for every answer.
    del response.headers["Content-Type"]
    return response
