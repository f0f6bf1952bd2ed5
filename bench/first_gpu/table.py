"""Makes a readable table of all figures of a run."""

from collections.abc import Iterable, Mapping
from typing import Any

# What the short table leaves out, unless it failed.
DETAILS = ("operation ", "compile ", "demo ", "weights made", "warm-up", "imported")
DETAIL_ENDS = (" layers made", ": first pass", ": ended")
DECIDING = ("target ", "offline ")
MIDDLE_BUDGETS = (1024, 4096, 16_384, 32_768)
MINOR_SHARE = 0.03
SHORT_CHARS, LONG_CHARS = 170, 400


def table(lines: Iterable[Mapping[str, Any]], *, is_short: bool = False) -> str:
    """Return one row for each line of figures.

    The short table is for the end of a log that may be cut at its start: what decides comes last.
    """
    rows = []
    for line in sorted(lines, key=decides) if is_short else lines:
        if has_ended_well(line) or (is_short and is_detail(line)):
            continue
        shown = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in line.items()
            if value is not None and name not in ("step", "what", "at_s")
        )
        rows.append(f"{line['what']:<40} {shown}"[: SHORT_CHARS if is_short else LONG_CHARS])
    return "\n".join(rows)


def decides(line: Mapping[str, Any]) -> bool:
    """Tell whether a line says that something failed, or is what a run is for."""
    return has_failed(line) or line["what"].startswith(DECIDING)


def has_failed(line: Mapping[str, Any]) -> bool:
    """Tell whether a line says that something failed, was left out or was ended."""
    is_bad_end = line.get("status") not in (0, None)
    return is_bad_end or any(word in line["what"] for word in ("FAILED", "left out", "time limit"))


def has_ended_well(line: Mapping[str, Any]) -> bool:
    """Tell whether a line says only that a part came to its end."""
    return line["what"].startswith("part ") and line.get("status") == 0


def is_detail(line: Mapping[str, Any]) -> bool:
    """Tell whether the short table leaves the line out."""
    if has_failed(line):
        return False
    what = line["what"]
    is_middle = what.startswith("model ") and line.get("budget") in MIDDLE_BUDGETS
    is_minor_kernel = what.endswith(": kernel") and line["share"] < MINOR_SHARE
    is_named = what.startswith(DETAILS) or what.endswith(DETAIL_ENDS) or "beside" in what
    return is_middle or is_minor_kernel or is_named
