"""Reports the progress of many texts: to a function, or as a bar of tqdm."""

import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager

from evascore.errors import EvascoreError

Progress = Callable[[int], None] | bool | None
"""A function of the number of texts done; True for a bar."""


class TqdmMissing(EvascoreError, ImportError):
    """tqdm is not installed."""


@contextmanager
def reported(progress: Progress, texts: object) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of texts done so far.

    Args:
        texts: all of them; a bar shows their number if they have a length.

    Raises:
        TqdmMissing: a bar is asked for.
    """
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda _: None
        return
    try:
        with warnings.catch_warnings():
            # In a notebook it draws a widget. Without ipywidgets it warns, and draws text.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        raise TqdmMissing(
            "progress=True needs tqdm; install it with: pip install 'evascore[notebook]'"
        ) from None
    with tqdm(total=len(texts) if isinstance(texts, Sized) else None, unit=" texts") as bar:
        yield lambda num_done: bar.update(num_done - bar.n) and None
