"""Runs `python -m worker.prefetch`: downloads the checkpoint of EVASCORE_MODEL ahead of time.

It does what a worker does at its start, and compares every checksum.
"""

import sys
from pathlib import Path

from contract.settings import SettingsInvalid, load_settings
from model import Checkpoint, CheckpointInvalid, fetch_checkpoint

EX_FAILED, EX_SETTINGS, EX_INTERRUPTED = 1, 2, 130


def main() -> int:
    """Download and check; return the exit code, 0 when a worker can start without a download."""
    try:
        settings = load_settings()
        name = settings.model
        checkpoint = fetch_checkpoint(name, settings.model_revision)
    except SettingsInvalid as error:
        return _fail(error, EX_SETTINGS)
    except CheckpointInvalid as error:
        return _fail(error, EX_FAILED)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; the downloaded part is kept, and the next call resumes", EX_INTERRUPTED
        )
    print(f"evascore prefetch: {_summary(name, checkpoint)}")
    return 0


def _summary(name: str, checkpoint: Checkpoint) -> str:
    files = checkpoint.weight_files
    done = "is a folder, nothing to download" if Path(name).is_dir() else "is downloaded"
    num_bytes = sum(file.stat().st_size for file in files)
    count = f"{len(files)} file{'s' * (len(files) != 1)} of weights, {num_bytes / 1e9:.2f} GB"
    return f"{name} {done}: {count}, in {checkpoint.folder}"


def _fail(reason: object, exit_code: int) -> int:
    print(f"evascore prefetch: {reason}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
