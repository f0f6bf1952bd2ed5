"""The public interface of the model: loads EvaByte checkpoints and scores texts with them.

Other packages import from here alone. The model knows no queue and no HTTP.

Importing this package registers configuration, model and tokenizer with transformers' Auto classes,
so that `AutoModelForCausalLM.from_pretrained` loads EvaByte without remote code.
"""

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from model.canary import check_canary, score_canary
from model.errors import (
    CheckpointInvalid,
    DeviceUnavailable,
    ModelDrifted,
    ModelError,
    OutOfMemory,
    QuantizationUnavailable,
    ScoringFailed,
)
from model.evabyte.configuration import EvaByteConfig
from model.evabyte.modeling import EvaByteForCausalLM
from model.evabyte.tokenizer import EvaByteTokenizer
from model.machine.collector import leave_out_loaded_objects
from model.machine.gpu_use import GpuReading
from model.scorer import ModelInfo, Scorer
from model.scoring.plan import Plan, Slice, SliceScores
from model.scoring.request import ScoreRequest
from model.weights.checkpoint import DEMO_CHECKPOINT, Checkpoint, fetch_checkpoint

AutoConfig.register(EvaByteConfig.model_type, EvaByteConfig)
AutoModelForCausalLM.register(EvaByteConfig, EvaByteForCausalLM)
AutoTokenizer.register(EvaByteConfig, EvaByteTokenizer)

__all__ = [
    "DEMO_CHECKPOINT",
    "Checkpoint",
    "CheckpointInvalid",
    "DeviceUnavailable",
    "EvaByteConfig",
    "EvaByteForCausalLM",
    "EvaByteTokenizer",
    "GpuReading",
    "ModelDrifted",
    "ModelError",
    "ModelInfo",
    "OutOfMemory",
    "Plan",
    "QuantizationUnavailable",
    "ScoreRequest",
    "Scorer",
    "ScoringFailed",
    "Slice",
    "SliceScores",
    "check_canary",
    "fetch_checkpoint",
    "leave_out_loaded_objects",
    "score_canary",
]
