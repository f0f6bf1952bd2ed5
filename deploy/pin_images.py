"""Writes the digests of the base images into the Compose file and the Dockerfiles.

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
    *("deploy/backup/Dockerfile", "deploy/redis/Dockerfile", ".devcontainer/Dockerfile"),
)
# A default of a variable such as REDIS_IMAGE: name, tag, and the digest if it is pinned already.
IMAGE = re.compile(r"(?<=_IMAGE)(:-|=)([\w./-]+:[\w.-]+)(@sha256:[0-9a-f]{64})?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NoDigest(Exception):
    """The registry gave no digest for an image."""


def pin(root: Path) -> dict[str, str]:
    """Pin every image in the files below `root`; return the digests by image.

    Raises:
        NoDigest: for one image; no file is changed then.
    """
    texts = {name: (root / name).read_text() for name in FILES}
    images = sorted({found[2] for text in texts.values() for found in IMAGE.finditer(text)})
    digests = {image: _digest(image) for image in images}
    for name, text in texts.items():
        pinned = IMAGE.sub(lambda found: f"{found[1]}{found[2]}@{digests[found[2]]}", text)
        (root / name).write_text(pinned)
    return digests


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
        digests = pin(REPOSITORY)
    except NoDigest as error:
        print(f"pin-images: {error}; nothing is changed", file=sys.stderr)
        return 1
    for image, digest in digests.items():
        print(f"{image}@{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
