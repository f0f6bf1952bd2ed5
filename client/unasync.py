"""Generates evascore/sync.py from evascore/aio.py: `python client/unasync.py [--check]`.

The two clients differ only in `async`, `await` and a few names. What differs by nature (sending,
sleeping, requests at once) is in http/async_driver.py and http/sync_driver.py. The method is that
of httpcore's scripts/unasync.py: substitutions by regular expression.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "evascore"
SOURCE, TARGET = PACKAGE / "aio.py", PACKAGE / "sync.py"
HEADER = (
    "# Generated from aio.py by client/unasync.py; change aio.py, then run `make sync-client`.\n"
)

# In this order. Each must match, so that a rule that is no longer needed is noticed.
SUBSTITUTIONS = (
    (r'^""".*?"""', '"""Defines the synchronous client, `Client`."""'),
    (r"each event loop has its own", "threads may share it, and each process has its own"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\basync_driver\b", "sync_driver"),
    (r"\bAsyncDriver\b", "SyncDriver"),
    (r"\bAsyncClient\b", "Client"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    # `yield from` does not exist in an async generator.
    (r"^( +)for (\w+) in (.+):\n +yield \2$", r"\1yield from \3"),
)
_ASYNCHRONOUS = re.compile(r"\b(async|await|asyncio)\b|Async")


def generate(source: str) -> str:
    """The text of sync.py for that of aio.py.

    Raises:
        ValueError: a substitution matches nothing, or something asynchronous is left.
    """
    code = source
    for pattern, replacement in SUBSTITUTIONS:
        code, num_replaced = re.subn(pattern, replacement, code, flags=re.MULTILINE)
        if not num_replaced:
            raise ValueError(f"aio.py has nothing that matches the substitution {pattern!r}")
    if left := _ASYNCHRONOUS.search(code):
        line = code[: left.start()].count("\n") + 1
        raise ValueError(f"{left[0]!r} is left in line {line}: add a substitution for it")
    return _formatted(HEADER + code)


def _formatted(code: str) -> str:
    """The code with sorted imports and in the repository's format."""
    for arguments in (["check", "--select", "I", "--fix"], ["format"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", TARGET, "-"],
            input=code,
            capture_output=True,
            text=True,
            check=True,
        )
        code = ran.stdout
    return code


def main() -> None:
    """Write sync.py, or with --check only compare it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="fail if sync.py is not current; write nothing"
    )
    is_check = parser.parse_args().check
    generated = generate(SOURCE.read_text())
    if not is_check:
        TARGET.write_text(generated)
    elif generated != TARGET.read_text():
        sys.exit(f"{TARGET} is not current: run `make sync-client`.")


if __name__ == "__main__":
    main()
