"""The pages for people: Swagger UI on our description, its assets served from its own wheel."""

from flask import Blueprint, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_swagger_ui import get_swaggerui_blueprint

DOCS_PATH = "/docs"

routes = Blueprint("pages", __name__)


@routes.get("/")
def home() -> ResponseReturnValue:
    """Lead whoever opens the service in a browser to its description."""
    return redirect(url_for("swagger_ui.show"))


def docs_routes() -> Blueprint:
    """Swagger UI; it loads nothing from elsewhere, the validator's badge included."""
    return get_swaggerui_blueprint(
        DOCS_PATH, "/openapi.json", config={"app_name": "evascore", "validatorUrl": None}
    )
