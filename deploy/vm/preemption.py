"""Waits for Google's notice that it preempts this spot VM, then runs a command.

The metadata server answers when the value changes, so the notice arrives at once. The VM ends
within 30 s. ACPI's power button is a second notice; whichever comes first drains the worker.
Needs only the standard library.

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
# The server answers after this time at the latest, also without a change.
HOLD_S = 60
RETRY_S = 1.0


def main() -> int:
    """Wait, then run the command; returns the exit code of the command."""
    parser = argparse.ArgumentParser(description="Run a command when this spot VM is preempted.")
    parser.add_argument("--then", required=True, help="the command, with its arguments")
    parser.add_argument("--metadata", default=METADATA, help="URL of the metadata server")
    parser.add_argument("--dry-run", action="store_true", help="show the command, do not run it")
    arguments = parser.parse_args()
    wait_for_notice(arguments.metadata)
    _say("this VM is preempted in 30 s")
    if arguments.dry_run:
        _say(f"would run: {arguments.then}")
        return 0
    return subprocess.run(shlex.split(arguments.then), check=False).returncode


def wait_for_notice(metadata: str) -> None:
    """Return when this VM is being preempted; repeat while the metadata server does not answer."""
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
    """Value and tag: at once if `seen` is empty, else when the value is newer than that tag."""
    query = f"?wait_for_change=true&last_etag={seen}&timeout_sec={HOLD_S}" if seen else ""
    request = urllib.request.Request(metadata + PATH + query, headers={"Metadata-Flavor": "Google"})
    # The request must not go through a proxy of the environment.
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
