"""Writes the digests of the base images into images.lock.

`make pin-images` runs it. A tag can lead to another image tomorrow, a digest cannot. It needs
Docker's buildx and the registry, but no engine. Run it again for newer images of the same tags.
"""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = (
    *("docker-compose.yml", ".env.example", "Dockerfile.web", "Dockerfile.worker"),
    *("deploy/backup/Dockerfile", "deploy/flower/Dockerfile", "deploy/redis/Dockerfile"),
    ".devcontainer/Dockerfile",
)
LOCK = "images.lock"
HEADER = """\
# Base images by digest, for `make up PINNED=1`. Docker accepts no other image then.
# `make pin-images` writes this file.
"""
# The default of a variable: REDIS_IMAGE=name:tag in an argument, REDIS_IMAGE:-name:tag in Compose.
IMAGE = re.compile(r"([A-Z]+_IMAGE)(?::-|=)([\w./-]+:[\w.-]+)")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NoDigest(Exception):
    """The registry gave no digest for an image."""


def images(root: Path) -> dict[str, str]:
    """The images that the files below `root` name, by variable."""
    named = (IMAGE.findall((root / name).read_text()) for name in FILES)
    return dict(sorted({pair for pairs in named for pair in pairs}))


def pin(root: Path) -> str:
    """Write images.lock below `root`; return its text.

    Raises:
        NoDigest: for one image; the file is not changed then.
    """
    lines = [f"{name}={image}@{_digest(image)}\n" for name, image in images(root).items()]
    text = HEADER + "".join(lines)
    (root / LOCK).write_text(text)
    return text


def _digest(image: str) -> str:
    """The digest that the tag of `image` leads to, on all platforms."""
    command = ["docker", "buildx", "imagetools", "inspect", image]
    try:
        asked = subprocess.run(
            [*command, "--format", "{{.Manifest.Digest}}"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise NoDigest(f"{image}: docker cannot be run ({error.strerror})") from error
    digest = asked.stdout.strip()
    if asked.returncode or not DIGEST.fullmatch(digest):
        reason = next(iter(asked.stderr.strip().splitlines()), "no digest in its answer")
        raise NoDigest(f"{image}: docker gave no digest ({reason})")
    return digest


def main() -> int:
    """Pin all images; return the exit code."""
    try:
        text = pin(REPOSITORY)
    except NoDigest as error:
        print(f"pin-images: {error}; {LOCK} is not changed", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
