"""Downloads checkpoints from the Hugging Face Hub, and resumes downloads that were cut off.

When a download ends early, huggingface_hub 2.4 deletes the partial file: gigabytes of weights. It
compares sizes, but never checksums. So this module downloads the weights to the place where the
cache of huggingface_hub keeps them, `blobs/<SHA-256>`, and huggingface_hub downloads the rest.

A checkpoint stays the one that was loaded first: its commit is kept in the cache. A later push to
the repository changes nothing here.
"""

import hashlib
import logging
import re
from os.path import normpath
from pathlib import Path
from typing import IO

from filelock import FileLock
from huggingface_hub import (
    DryRunFileInfo,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import DryRunError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from model.errors import CheckpointInvalid

log = logging.getLogger(__name__)

NAME = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Holds the commit that was loaded first, in the folder of the repository in the cache.
PIN_FILE = "evascore-revision"
SHA256 = re.compile(r"[0-9a-f]{64}")
WEIGHTS = "*.safetensors"
# A repository may hold the same weights in other formats, each in its own folder.
IN_FOLDERS = "*/*"


def fetch_files(name: str, small_files: tuple[str, ...], revision: str | None = None) -> Path:
    """Return the folder of the checkpoint `name`, `owner/name`, in the Hub's cache.

    Downloads the weights and `small_files` that the cache lacks. If the Hub cannot be reached, a
    complete checkpoint in the cache is enough.

    Args:
        revision: commit, tag or branch; None is the commit that was loaded first, and the newest
            one when none was.

    Raises:
        CheckpointInvalid: one line says how the Hub, the connection or the disk failed.
    """
    import httpx2  # here, since a machine that downloads nothing may lack it

    pin = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), PIN_FILE)
    pinned = None if revision else _pinned(pin)
    wanted = revision or pinned
    try:
        for file in _missing_weights(name, wanted):
            _fetch(name, file)
        patterns = [*small_files, WEIGHTS]
        with disable_progress_bars():
            folder = Path(
                snapshot_download(
                    name,
                    revision=wanted,
                    allow_patterns=patterns,
                    ignore_patterns=[IN_FOLDERS],
                )
            )
        _keep(pin, folder.name)
        return folder
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        if pinned and isinstance(error, RevisionNotFoundError):
            raise CheckpointInvalid(
                f"checkpoint {name}: the Hub no longer has commit {pinned}, which was loaded here "
                "first; to load another one, set EVASCORE_MODEL_REVISION or --revision, or delete "
                f"{pin} to load the newest"
            ) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # snapshot_download puts this before the message of the original error.
        reason = reason.removeprefix("Got: ")
        at = f" at revision {wanted}" if wanted else ""
        raise CheckpointInvalid(
            f"checkpoint {name}{at}: no such folder, and the download from the Hub failed "
            f"({reason}); "
            "check the name and the connection, or name a local folder; the downloaded part is kept"
        ) from error


def expected_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file in the Hub's cache as the Hub gave it; None of other files."""
    if not path.is_symlink():
        return None
    blob = path.readlink()
    return blob.name if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name) else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_downloads(paths: tuple[Path, ...]) -> None:
    """Compare the files in the Hub's cache with their checksums. Raises: CheckpointInvalid."""
    for path in paths:
        expected = expected_sha256(path)
        if expected is not None and sha256_of(path) != expected:
            raise CheckpointInvalid(
                f"{path}: damaged, its SHA-256 is not that of the Hub; delete "
                f"{normpath(path.parent / path.readlink())} to download it again"
            )


def _pinned(pin: Path) -> str | None:
    """The commit that was loaded first; None if there is none, or its file is damaged."""
    try:
        commit = pin.read_text("ascii", "replace").strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _keep(pin: Path, commit: str) -> None:
    """Keep the commit for later starts, unless one is kept."""
    if _pinned(pin) is not None:
        return
    try:
        pin.write_text(f"{commit}\n")
    except OSError as error:
        log.warning("the revision %s cannot be kept in %s: %s", commit, pin, error)


def _missing_weights(name: str, revision: str | None) -> list[DryRunFileInfo]:
    try:
        with disable_progress_bars():
            files = snapshot_download(
                name,
                revision=revision,
                allow_patterns=[WEIGHTS],
                ignore_patterns=[IN_FOLDERS],
                dry_run=True,
            )
    except DryRunError:
        # The Hub is away or refuses. snapshot_download reports it unless the cache is complete.
        return []
    return [file for file in files if file.will_download]


def _fetch(name: str, file: DryRunFileInfo) -> None:
    """Download one file of weights to its place in the cache; resume a partial download."""
    url = hf_hub_url(name, file.filename, revision=file.commit_hash)
    sha256 = get_hf_file_metadata(url).etag
    if sha256 is None or not SHA256.fullmatch(sha256):
        # A small file in git itself, which has another kind of checksum.
        return
    repository = Path(file.local_path).parent.parent.parent
    blob = repository / "blobs" / sha256
    part = blob.with_suffix(".part")
    # The lock that huggingface_hub takes for this blob.
    lock = repository.parent / ".locks" / repository.name / f"{sha256}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        # Another process may have fetched it while this one waited for the lock.
        if blob.exists():
            return
        with part.open("ab") as target:
            _download(url, target, file.file_size)
        if sha256_of(part) != sha256:
            part.unlink()
            raise CheckpointInvalid(
                f"checkpoint {name}: {file.filename} arrived damaged, its SHA-256 is not that of "
                "the Hub; it was deleted, try again, then check HF_ENDPOINT and the proxy"
            )
        part.rename(blob)


def _download(url: str, target: IO[bytes], num_bytes: int | None) -> None:
    """Append the missing bytes to `target`; retry as long as each attempt brings some."""
    import httpx2

    if num_bytes is not None and target.tell() > num_bytes:
        target.seek(0)
        target.truncate()
    # A range of a compressed body would count compressed bytes.
    headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
    while True:
        had_bytes = target.tell()
        try:
            http_get(
                url,
                target,  # type: ignore[arg-type]
                resume_size=had_bytes,
                headers=headers,
                expected_size=num_bytes,
            )
            return
        except httpx2.TransportError as error:
            if target.tell() == had_bytes:
                raise
            log.warning("the download was cut off and is resumed: %s", error)
