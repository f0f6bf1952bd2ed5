"""Waits for the notice that Google takes a spot VM back, then runs a command.

The metadata server holds the answer back until the value changes, so the notice is seen at once.
The VM ends within 30 s of it, by ACPI's power button first; whichever is seen first drains the
worker. Standard library only.

Source: https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
"""

import argparse
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request

METADATA = "http://metadata.google.internal"
PATH = "/computeMetadata/v1/instance/preempted"
# The server answers at the latest after this, changed or not.
HOLD_S = 60
RETRY_S = 1.0


def main() -> int:
    """Wait, then run the command; returns the exit code of the command."""
    parser = argparse.ArgumentParser(description="Run a command when this spot VM is preempted.")
    parser.add_argument("--then", required=True, help="the command, with its arguments")
    parser.add_argument("--metadata", default=METADATA, help="URL of the metadata server")
    parser.add_argument("--dry-run", action="store_true", help="show the command instead")
    arguments = parser.parse_args()
    wait_for_notice(arguments.metadata)
    _say("this VM is taken back in 30 s")
    if arguments.dry_run:
        _say(f"would run: {arguments.then}")
        return 0
    return subprocess.run(shlex.split(arguments.then), check=False).returncode


def wait_for_notice(metadata: str) -> None:
    """Return when the VM at hand is being preempted; a server that is away is asked again."""
    seen, is_away = "", False
    while True:
        try:
            value, seen = _ask(metadata, seen)
        except (OSError, ValueError) as error:
            if not is_away:
                _say(f"the metadata server does not answer ({error}); asking again")
            seen, is_away = "", True
            time.sleep(RETRY_S)
            continue
        is_away = False
        if value == "TRUE":
            return


def _ask(metadata: str, seen: str) -> tuple[str, str]:
    """The value, and its tag; without a tag at once, else when the value differs from the tag's."""
    query = f"?wait_for_change=true&last_etag={seen}&timeout_sec={HOLD_S}" if seen else ""
    request = urllib.request.Request(metadata + PATH + query, headers={"Metadata-Flavor": "Google"})
    # A proxy of the environment must never see it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=HOLD_S + 10) as answer:
        tag = answer.headers.get("ETag")
        if not tag:
            raise ValueError("its answer has no ETag")
        return answer.read(16).decode().strip(), tag


def _say(line: str) -> None:
    print(f"preemption: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
