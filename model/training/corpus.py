"""Builds the training and held-out text: `python -m model.training.corpus [--folder F]`.

Fetches the Debian packages of `sources.py` with apt-get, unpacks, extracts and cleans them, and
writes `train.bin`, one `held_<group>.bin` for each group of held-out pages, and `packages.json`.
Needs a Debian 12 system with apt-get, dpkg-deb and mod2imp (package libsword-utils).
"""

import argparse
import hashlib
import json
import logging
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from model.training.clean import Document, clean
from model.training.sources import SOURCES, Source

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("data/training")
HELD_OUT_SHARE = 0.04
# Enough for bits per byte to two decimals; the evaluation takes minutes on two cores.
MAX_HELD_OUT_BYTES = 200_000


def fetch_packages(packages: list[str], folder: Path) -> None:
    """Download and unpack Debian packages below `folder`, each once."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [x for x in packages if not any(folder.glob(f"{x}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True)
    for package in packages:
        target = folder / package
        if not target.exists():
            archive = next(folder.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg-deb", "-x", archive, target], check=True)


def package_version(package: str, folder: Path) -> str:
    """Return the version of a downloaded package."""
    archive = next(folder.glob(f"{package}_*.deb"))
    answer = subprocess.run(
        ["dpkg-deb", "-f", archive, "Version"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def read_documents(source: Source, root: Path) -> Iterator[Document]:
    """Yield the uncleaned pages of a source from its unpacked package."""
    for path in sorted(x for x in root.rglob("*") if x.is_file() and not x.is_symlink()):
        place = source.match(path.relative_to(root).as_posix())
        if place is None:
            continue
        language, page = place
        for part, text in source.read(path):
            yield Document(source.package, language, page + part, text)


def is_held_out(document: Document, share: float = HELD_OUT_SHARE) -> bool:
    """Tell whether a page is held out, by a hash that all its translations share."""
    kind = document.source.split("-help-")[0]
    digest = hashlib.sha256(f"{kind}/{document.page}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split(documents: Iterable[Document]) -> tuple[list[Document], dict[str, list[Document]]]:
    """Return (training documents, held-out documents by group).

    A group is a language, "code", or "en-unseen" for a source that is never trained on.
    """
    unseen = {source.package for source in SOURCES if source.is_unseen}
    train: list[Document] = []
    held: defaultdict[str, list[Document]] = defaultdict(list)
    for document in documents:
        if document.source in unseen:
            held["en-unseen"].append(document)
        elif is_held_out(document):
            held[document.language].append(document)
        else:
            train.append(document)
    return train, held


def cap_sources(documents: list[Document], rng: random.Random) -> list[Document]:
    """Return a shuffled selection that respects each source's `max_train_bytes`."""
    budget = {source.package: source.max_train_bytes for source in SOURCES}
    used: defaultdict[tuple[str, str], int] = defaultdict(int)
    kept = []
    for document in rng.sample(documents, len(documents)):
        group = document.source, document.language
        if used[group] < budget[document.source]:
            used[group] += len(document.text.encode())
            kept.append(document)
    for (source, language), num_bytes in sorted(used.items()):
        log.info("%s %s: %.2f MB", source, language, num_bytes / 1e6)
    return kept


def build(folder: Path, seed: int = 1) -> None:
    """Write train.bin, held_<group>.bin and packages.json into `folder`."""
    packages = [source.package for source in SOURCES]
    package_folder = folder / "packages"
    fetch_packages(packages, package_folder)
    with ProcessPoolExecutor() as pool:
        pages = pool.map(_read_all, SOURCES, (package_folder / x for x in packages))
        documents = clean(document for group in pages for document in group)
    train, held = split(documents)
    rng = random.Random(seed)
    _write(folder / "train.bin", cap_sources(train, rng))
    for group, pages_held in held.items():
        rng.shuffle(pages_held)
        _write(folder / f"held_{group}.bin", pages_held, MAX_HELD_OUT_BYTES)
    table = [
        {"package": x.package, "licence": x.licence, "version": version}
        for x in SOURCES
        for version in [package_version(x.package, package_folder)]
    ]
    (folder / "packages.json").write_text(json.dumps(table, indent=1) + "\n")


def _read_all(source: Source, root: Path) -> list[Document]:
    return list(read_documents(source, root))


def _write(path: Path, documents: list[Document], max_bytes: int | None = None) -> None:
    text = "\n".join(document.text for document in documents).encode()[:max_bytes]
    path.write_bytes(text)
    log.info("%s: %d pages, %.2f MB", path.name, len(documents), len(text) / 1e6)


def main() -> None:
    """Build the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="work folder")
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(folder)


if __name__ == "__main__":
    main()
