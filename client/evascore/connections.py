"""Gives each process, and each event loop, connections of its own.

A forked process inherits the sockets of its parent. Two processes that read from one socket get
each other's answers. An event loop cannot use the connections that another one opened.
"""

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from evascore.errors import ClientNotUsable

T = TypeVar("T")

Place = tuple[int, AbstractEventLoop | None]
"""A process by its ID, and the event loop in it; None for threads."""


class PerProcess(Generic[T]):
    """Keeps one value for each process: a forked process makes its own at its first use."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Make nothing yet."""
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """The value of this process; threads get the same one."""
        pid = os.getpid()
        made = self._made.get(pid)
        # No lock here: one that another thread holds during a fork stays locked in the child.
        return self._made.setdefault(pid, self._make()) if made is None else made


class Connections(Generic[T]):
    """The httpx clients of one client of this package, by process and event loop.

    Those of a parent process are kept, not closed: they are still in use there.
    """

    def __init__(self, make: Callable[[], T], given: T | None) -> None:
        """Open nothing yet.

        Args:
            make: makes an httpx client.
            given: the httpx client of the caller, to use instead; it cannot be made again.
        """
        self._make, self._given = make, given
        self._made: dict[Place, T] = {}
        self._birth_pid = os.getpid()
        self._user: Place | None = None
        """Where the given client was used first."""
        self._is_closed = False

    def here(self, loop: AbstractEventLoop | None = None) -> T:
        """The httpx client of this process and of `loop`.

        Raises:
            ClientNotUsable: the client is closed, or cannot be used here.
        """
        if self._is_closed:
            raise ClientNotUsable("This client is closed; make a new one.")
        place = (os.getpid(), loop)
        if self._given is not None:
            self._claim(place)
            return self._given
        made = self._made.get(place)
        return self._begin(place) if made is None else made

    def close(self, loop: AbstractEventLoop | None = None) -> T | None:
        """Allow no further use, and return the httpx client to close here, if there is one."""
        self._is_closed = True
        place = (os.getpid(), loop)
        if self._given is not None:
            return self._given if self._user in (None, place) else None
        return self._made.get(place)

    def _begin(self, place: Place) -> T:
        """Make the httpx client of `place`; drop those of closed event loops of this process.

        Raises:
            ClientNotUsable: the event loop was copied by a fork.
        """
        pid, loop = place
        for other_pid, other_loop in list(self._made):
            if other_loop is None:
                continue
            if other_loop is loop and other_pid != pid:
                raise ClientNotUsable(
                    "This event loop was made before the process was forked; use a new one,"
                    " for example with asyncio.run."
                )
            if other_pid == pid and other_loop.is_closed():
                # Nobody can use or close them any more.
                self._made.pop((other_pid, other_loop), None)
        return self._made.setdefault(place, self._make())

    def _claim(self, place: Place) -> None:
        """Take the given httpx client for `place`, unless it was used elsewhere.

        Raises:
            ClientNotUsable: it was.
        """
        if self._user is None and (place[0] == self._birth_pid or _is_unused(self._given)):
            self._user = place
        if self._user == place:
            return
        if self._user is not None and self._user[0] == place[0]:
            raise ClientNotUsable(
                "The httpx client given as http= was used in another event loop; make a client in"
                " each event loop, or leave http= out."
            )
        raise ClientNotUsable(
            "The httpx client given as http= was used before this process was forked; make a"
            " client in each process, or leave http= out."
        )


def _is_unused(http: Any) -> bool:
    """Whether an httpx client has sent nothing yet; a test notices if httpx renames this."""
    return getattr(getattr(http, "_state", None), "name", None) == "UNOPENED"


def check_process(pid: int) -> None:
    """Refuse to go on with what a process before the fork began: its threads are not here.

    Raises:
        ClientNotUsable: `pid` is not this process.
    """
    if os.getpid() != pid:
        raise ClientNotUsable(
            "This score_many was begun before the process was forked; begin it in the process that"
            " reads it."
        )
