"""Defines the errors that `model` raises, and what a caller can do about each.

ModelError
├── CheckpointInvalid         the checkpoint cannot be loaded: repair it or name another one
├── ModelDrifted              the model does not score as before: do not use it
├── DeviceUnavailable         there is no such device here: use another one
├── QuantizationUnavailable   there is no such mode, or not on this device: use another one
├── OutOfMemory               weights or a pass did not fit: score fewer bytes at a time
└── ScoringFailed             a score is not a finite number: leave the text out

A request beyond the limits of the model gets a `ClientError` of `contract/errors.py`.
"""


class ModelError(Exception):
    """Base of every error that `model` raises on purpose."""


class CheckpointInvalid(ModelError):
    """A checkpoint is missing, incomplete, damaged or of another architecture."""


class ModelDrifted(ModelError):
    """The score of a fixed text differs from the expected one."""


class DeviceUnavailable(ModelError):
    """This machine does not have the requested device."""


class QuantizationUnavailable(ModelError):
    """There is no such quantization, or this machine has no package or no products for it."""


class OutOfMemory(ModelError):
    """The weights or a pass needed more memory than the device has."""


class ScoringFailed(ModelError):
    """The model gave a score that is not finite."""
