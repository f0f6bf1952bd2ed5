"""How long Triton takes to compile; importing it imports Triton."""

from collections.abc import Callable
from typing import Any

from triton import knobs


def watch_compilation(tell: Callable[[float], None]) -> None:
    """Have `tell` called with the seconds of every kernel that is compiled from now on.

    What Triton finds in its cache is not compiled.
    """

    def listen(*, times: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            tell(times.total / 1e6)

    knobs.compilation.listener = listen
