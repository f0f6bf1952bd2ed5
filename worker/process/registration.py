"""Makes the model of a worker the current one of its name, once, when the worker is ready."""

from contract.store.queue.model_registry import ModelRegistry
from contract.worker_status import WorkerStatus


class Registration:
    """The place of one worker's model in the registry; Redis errors reach the caller."""

    def __init__(self, registry: ModelRegistry, status: WorkerStatus) -> None:
        self._registry, self._status = registry, status
        self._was_current = False

    def renew(self) -> None:
        """Make the model current the first time, and later see that Redis has not lost it.

        A worker that only reconnects does not take the name back from a newer model.
        """
        if self._was_current:
            self._registry.keep(*self.model)
        else:
            self._registry.make_current(*self.model)
            self._was_current = True

    @property
    def model(self) -> tuple[str, str]:
        """The name and the fingerprint of the model, which is loaded."""
        name, fingerprint = self._status.model_name, self._status.fingerprint
        assert name is not None
        assert fingerprint is not None
        return name, fingerprint
