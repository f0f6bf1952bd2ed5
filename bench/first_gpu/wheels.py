"""Downloads the wheels that a GPU machine without a package index lacks.

    python -m bench.first_gpu.wheels FOLDER [--only NAME ...]

The versions and hashes are those of the lock files, for CPython 3.12 on Linux, x86-64. The GPU
machine brings PyTorch, Triton, transformers, pytest and what these need. Needs only pip.
"""

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PYTHON = "3.12"
# pip takes a number of glibc to the letter, so each one in use is named.
GLIBC_MINORS = (39, 38, 36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
# What comes with PyTorch, transformers and accelerate; other versions would not fit these.
MACHINE_BRINGS = frozenset(
    {
        *("accelerate", "anyio", "filelock", "fsspec", "h11", "hf-xet", "huggingface-hub", "idna"),
        *("mpmath", "networkx", "numpy", "packaging", "psutil", "pyyaml", "regex", "safetensors"),
        *("setuptools", "sympy", "tokenizers", "tqdm", "transformers", "triton"),
    }
)
# Without them the tests of the kernels run in one process, which takes longer than they may.
TEST_TOOLS = frozenset({"execnet", "pytest-xdist"})
# A bare machine may have no time zones.
NEEDED_ANYWHERE = frozenset({"tzdata"})
OTHER_PLATFORM = re.compile(r"== '(win32|darwin|emscripten)'|python_full_version <")
# bitsandbytes has a library for each CUDA; PyTorch of the GPU machine has CUDA 13.0.
UNWANTED_LIBRARY = re.compile(r"/libbitsandbytes_(?!cpu\.so$|cuda130\.so$)[^/]*$")


def main() -> int:
    """Fill the folder of the command line; return pip's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="its wheels are deleted first")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="packages; default: all")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for wheel in options.folder.glob("*.whl"):
        wheel.unlink()
    wanted = wanted_wheels()
    if options.only:
        wanted = {name: wanted[name] for name in options.only}
    status = _download(wanted, options.folder)
    for wheel in options.folder.glob("bitsandbytes-*.whl"):
        slim(wheel)
    sizes = [wheel.stat().st_size for wheel in options.folder.glob("*.whl")]
    print(f"{len(sizes)} wheels in {options.folder}, {sum(sizes) / 2**20:.1f} MiB")
    return status


def wanted_wheels() -> dict[str, str]:
    """Return the pinned requirements, by name, of the service and of what runs the tests."""
    locks = [REPOSITORY / f"requirements{kind}.lock" for kind in ("", "-dev")]
    service, development = (dict(lacking(lock.read_text())) for lock in locks)
    return service | {name: development[name] for name in TEST_TOOLS}


def lacking(lock: str) -> Iterator[tuple[str, str]]:
    """Yield name and pinned requirement, hashes included, of what the GPU machine lacks."""
    for block in re.split(r"\n(?=\S)", lock.strip()):
        first, _, hashes = block.partition("\\\n")
        pin, _, marker = first.partition(";")
        name = pin.partition("==")[0].strip()
        is_for_others = OTHER_PLATFORM.search(marker) and name not in NEEDED_ANYWHERE
        if name not in MACHINE_BRINGS and not is_for_others:
            yield name, f"{pin.strip()} \\\n{hashes}"


def slim(wheel: Path) -> None:
    """Leave the libraries for other versions of CUDA out of a wheel, and adapt its RECORD."""
    partial = wheel.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(partial, "w") as small:
        [record] = [name for name in whole.namelist() if name.endswith(".dist-info/RECORD")]
        lines = []
        for info in whole.infolist():
            if info.is_dir() or info.filename == record or UNWANTED_LIBRARY.search(info.filename):
                continue
            content = whole.read(info)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            lines.append(f"{info.filename},sha256={digest.decode()},{len(content)}")
            small.writestr(info, content, zipfile.ZIP_DEFLATED)
        small.writestr(record, "\n".join([*lines, f"{record},,", ""]))
    partial.replace(wheel)


def _download(wanted: dict[str, str], folder: Path) -> int:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    with tempfile.TemporaryDirectory() as place:
        requirements = Path(place) / "requirements.txt"
        requirements.write_text("\n".join(wanted.values()))
        command = [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder)),
            *("--python-version", PYTHON, "--implementation", "cp"),
            *(word for abi in ("cp312", "abi3", "none") for word in ("--abi", abi)),
            *(word for platform in platforms for word in ("--platform", platform)),
            *("--requirement", str(requirements)),
        ]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
