"""Reads the CPU time and the memory of a server's processes."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

import psutil

_Found = TypeVar("_Found")


class Memory(NamedTuple):
    """Memory of several processes."""

    rss_mb: float
    """Resident; pages that processes share count in each."""
    pss_mb: float
    """Resident; a page that n processes share counts 1/n in each. As RSS where unknown."""


def tree(root: psutil.Process) -> Iterator[psutil.Process]:
    """A process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        yield from [root, *root.children(recursive=True)]


def cpu_s(root: psutil.Process) -> float:
    """User and system time of a process and its descendants, seconds; 10 ms is one step."""
    return sum(_of_each(root, lambda each: sum(each.cpu_times()[:2])))


def memory(root: psutil.Process) -> Memory:
    """Memory of a process and its descendants, in units of 1,000,000 bytes."""

    def rss_and_pss(process: psutil.Process) -> tuple[float, float]:
        found = process.memory_full_info()
        return found.rss, getattr(found, "pss", found.rss)

    each = list(_of_each(root, rss_and_pss))
    return Memory(sum(rss for rss, _ in each) / 1e6, sum(pss for _, pss in each) / 1e6)


def _of_each(root: psutil.Process, read: Callable[[psutil.Process], _Found]) -> Iterator[_Found]:
    for process in tree(root):
        with suppress(psutil.NoSuchProcess):
            yield read(process)
