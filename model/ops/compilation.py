"""Measures how long Triton compiles kernels; importing this module imports Triton."""

from collections.abc import Callable
from typing import Any

from triton import knobs


def watch_compilation(tell: Callable[[float], None]) -> None:
    """Call `tell` with the compile time in seconds of every kernel compiled from now on.

    Kernels in Triton's cache are not compiled.
    """

    def listen(*, times: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            tell(times.total / 1e6)

    knobs.compilation.listener = listen
