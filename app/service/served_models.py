"""The models that a completion can ask for by name."""

from app.service.parts import Service
from contract.store.job_store import WARM_STATES
from contract.worker_status import worker_statuses

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
