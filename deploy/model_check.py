"""Refuses a wrong EVASCORE_MODEL before a worker spends seconds on importing PyTorch.

It finds the usual mistakes: a folder or a name that does not exist, or another model. The worker
checks the rest. Its own checks say the same, and a test compares the two.
"""

import json
import re
from pathlib import Path

from contract.setting_refusals import environment_name

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# A Hub that is slow, or away, must not delay a start that needs no download.
HUB_TIMEOUT_S = 5.0


class ModelRefused(Exception):
    """EVASCORE_MODEL names nothing that could be scored with; the message is one line."""


def check_model(name: str) -> None:
    """Check that a folder could hold a checkpoint, or that the Hub has one of this name.

    Raises:
        ModelRefused: it cannot; the message names the setting and the remedy.
    """
    folder = Path(name)
    if folder.is_dir():
        complaint = _complaint_of_folder(folder)
    elif _HUB_NAME.fullmatch(name):
        complaint = _complaint_of_hub(name)
    else:
        complaint = (
            f"checkpoint {name}: no such folder; give a folder, or a name on the Hub as owner/name"
        )
    if complaint is not None:
        raise ModelRefused(f"{environment_name('model')}: {complaint}")


def _complaint_of_folder(folder: Path) -> str | None:
    path = folder / _CONFIG
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return f"{path}: not found; name the folder that holds {_CONFIG} and the weights"
    except (OSError, ValueError, RecursionError):
        return f"{path}: is not readable JSON; copy it again"
    if not isinstance(fields, dict):
        return f"{path}: is not a JSON object; copy it again"
    if fields.get("model_type") != "evabyte":
        return (
            f"{path}: model_type is {fields.get('model_type')!r}, not 'evabyte'; "
            "only EvaByte checkpoints are supported"
        )
    if not any((folder / name).is_file() for name in _WEIGHTS):
        return (
            f"{folder}: has neither {' nor '.join(_WEIGHTS)}; convert weights in other "
            "formats to safetensors"
        )
    return None


def _complaint_of_hub(name: str) -> str | None:
    """What the Hub says against the name; None where it cannot be asked."""
    # Only a start with a checkpoint from the Hub pays for this import.
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    # What is in the cache can be loaded, even if the Hub has deleted it since.
    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
    if cached.is_dir():
        return None
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        return (
            f"checkpoint {name}: no such folder, and the Hub has no such checkpoint, or hides it "
            "from you; check the name, or set HF_TOKEN"
        )
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError):
        # The worker has the cache, more patience, and the exact reason.
        return None
    return None
