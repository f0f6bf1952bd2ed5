"""The models that a completion can ask for by name."""

from app.admission import worker_statuses
from app.service import Service
from contract.job_store import WARM_STATES

SERVICE_NAME = "evascore"


def served_models(service: Service) -> list[str]:
    """The service's own name and those of the warm workers' models; empty if no worker is warm.

    Raises:
        BrokerUnavailable
    """
    with service.guard.calling():
        statuses = worker_statuses(service.store)
    warm = {status["model"]["name"] for status in statuses if status["state"] in WARM_STATES}
    return sorted({SERVICE_NAME, *warm}) if warm else []
