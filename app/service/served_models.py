"""The models that a completion can ask for by name."""

from app.service.parts import Service

SERVICE_NAME = "evascore"


def served_models(service: Service) -> list[str]:
    """The service's own name and those of the warm workers' models; empty if no worker is warm.

    Raises:
        BrokerUnavailable
    """
    statuses = service.store.worker_statuses()
    warm = {status.model_name for status in statuses if status.is_warm and status.model_name}
    return sorted({SERVICE_NAME, *warm}) if warm else []
