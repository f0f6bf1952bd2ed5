"""Finds the facts of the model that an evaluation asks for, such as its limits."""

from collections.abc import Mapping
from typing import Any

from evascore.errors import ModelNotFound, WorkerUnavailable
from evascore.results import Info


def facts_of(info: Info, model: str | None) -> Mapping[str, Any]:
    """The facts of the model that is asked for; None and `evascore` ask for the default one.

    Raises:
        WorkerUnavailable: there is no worker, so nothing is known of the default model.
        ModelNotFound: no worker serves the model.
    """
    if model in (None, "evascore"):
        if info.model is not None:
            return info.model
        detail = (
            "The service has no worker, so the limits of its model are unknown. Start a worker;"
            " `evascore doctor` shows when it is ready."
        )
        raise WorkerUnavailable(
            {"type": WorkerUnavailable.code, "detail": detail, "retryable": True}
        )
    for listed in info.models:
        if model in (listed["id"], f"{listed['name']}@{listed['fingerprint']}"):
            return listed
    served = ", ".join(listed["id"] for listed in info.models) or "none"
    detail = f"The service does not serve this model. It serves: {served}."
    raise ModelNotFound({"type": ModelNotFound.code, "detail": detail})
