"""Groups neighbours in a sequence under a limit of bytes, and keeps their order."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def group_neighbours(
    items: Sequence[Item], max_bytes: int, num_bytes: Callable[[Item], int]
) -> Iterator[tuple[Item, ...]]:
    """Yield neighbours of at most `max_bytes` together; a longer item comes alone."""
    together: list[Item] = []
    room_bytes = max_bytes
    for item in items:
        if together and num_bytes(item) > room_bytes:
            yield tuple(together)
            together, room_bytes = [], max_bytes
        together.append(item)
        room_bytes -= num_bytes(item)
    if together:
        yield tuple(together)
