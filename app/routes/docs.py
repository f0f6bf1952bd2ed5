"""Serves Swagger UI at `/docs/`, from the files of the package flask-swagger-ui.

The package's own page has an inline script, which the Content-Security-Policy refuses, and which
quotes the Host of the request. So the page is ours.
"""

from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, abort, send_from_directory

from app.routes.pages import CONTENT_SECURITY_POLICY, page
from app.service.components import service

FOLDER = Path(flask_swagger_ui.__file__).parent / "dist"
FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
# That of all pages, and the icons, which stand in Swagger UI's style sheet.
POLICY = CONTENT_SECURITY_POLICY.replace("img-src 'self'", "img-src 'self' data:")
# Strides must be multiples of the attention window, as this is of all powers of 2 up to it.
STRIDE_BYTES = 2048

routes = Blueprint("docs", __name__, url_prefix="/docs")


@routes.get("/")
def show() -> Response:
    """Show the description of the API, from which requests can be tried."""
    size = service().models.limits().max_text_bytes
    response = page(
        "docs.html", window=f"{size},{max(size // 2 // STRIDE_BYTES, 1) * STRIDE_BYTES}"
    )
    response.headers["Content-Security-Policy"] = POLICY
    return response


@routes.get("/<name>")
def file(name: str) -> Response:
    """Serve a script or a style of Swagger UI."""
    if name not in FILES:
        abort(404)
    return send_from_directory(FOLDER, name)
