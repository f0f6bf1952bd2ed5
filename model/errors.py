"""What can go wrong in `model`, for the caller to act on.

ModelError
├── CheckpointInvalid         the checkpoint cannot be loaded: mend it or name another one
├── ModelDrifted              the model does not score as it did: do not score with it
├── DeviceUnavailable         there is no such device: use another one
├── QuantizationUnavailable   there is no such mode here: use another one
├── RequestInvalid            one request is malformed: its sender mends it
├── OutOfMemory               the weights or a pass did not fit: ask for less at a time
└── ScoringFailed             the model's answer is not a number: leave the text out
"""


class ModelError(Exception):
    """Base of every error that `model` raises on purpose."""


class CheckpointInvalid(ModelError):
    """A checkpoint is absent, incomplete, damaged or of another architecture."""


class ModelDrifted(ModelError):
    """The model's score of a fixed text is not the one that it must be."""


class DeviceUnavailable(ModelError):
    """The device asked for is not on this machine."""


class QuantizationUnavailable(ModelError):
    """The quantization asked for does not exist, or needs a package that is not here."""


class RequestInvalid(ModelError):
    """A request for scores is malformed; its message never holds the text."""

    def __init__(self, code: str, message: str, pointer: str = "") -> None:
        """`code` is stable snake_case; `pointer` is an RFC 6901 pointer to the field at fault."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


class OutOfMemory(ModelError):
    """The weights or a pass needed more memory than the device has."""


class ScoringFailed(ModelError):
    """The model gave a score that is not finite."""
