"""Answers count as memory of their client until they are sent."""

import socket
import threading

import pytest

from app.factory import create_app
from app.requests.page_query import Page
from app.responses.answer_memory import PartRoom, cut
from app.responses.batch_answers import page_answer
from app.service.body_memory import BodyMemory
from app.service.callers import Caller
from app.service.components import EXTENSION
from contract.batches import Batch, Part
from contract.errors import Overloaded
from contract.settings import load_settings


def test_page_takes_memory_until_it_is_sent():
    # 16 MiB for all, half of it for one client.
    app = create_app(load_settings({"EVASCORE_MAX_BODY_BYTES": str(2**20)}))
    service = app.extensions[EXTENSION]
    batch = Batch("id", total=1, num_bytes=1, num_parts=1, created_at=0, deadline_at=1)
    parts = [(Part(0, 1, 1), bytes(2**20))]
    with app.test_request_context(environ_base={"REMOTE_ADDR": "127.0.0.1"}) as context:

        def page():
            return page_answer(service, context.request, batch, Page(0, 1), parts)

        pages = [page() for _ in range(8)]
        with pytest.raises(Overloaded, match="Answers in progress take too much memory"):
            page()
        pages[0].close()
        page()
    service.changes.close()


MIB = 2**20


def test_first_part_is_refused_without_room_and_a_later_one_waits():
    memory = BodyMemory(4 * MIB, "Answers")
    room, another = (PartRoom(memory, Caller("x", {})) for _ in range(2))
    with room.reserved(MIB):
        pass
    memory.take("x", 2 * MIB)
    with pytest.raises(Overloaded), another.reserved(MIB):
        pass
    came = threading.Event()

    def release() -> None:
        came.set()
        memory.release("x", 2 * MIB)

    threading.Timer(0.3, release).start()
    with room.reserved(MIB):
        assert came.is_set()
    memory.take("x", 2 * MIB)


def test_part_larger_than_the_share_counts_as_the_share():
    room = PartRoom(BodyMemory(4 * MIB, "Answers"), Caller("x", {}))
    with room.reserved(3 * MIB):
        pass


def test_answer_that_waits_for_room_ends_when_its_client_leaves():
    ours, theirs = socket.socketpair()
    memory = BodyMemory(4 * MIB, "Answers")
    room = PartRoom(memory, Caller("x", {"gunicorn.socket": ours}))
    with room.reserved(MIB):
        pass
    memory.take("x", 2 * MIB)
    threading.Timer(0.3, theirs.close).start()
    with pytest.raises(ConnectionAbortedError), room.reserved(MIB):
        pass
    ours.close()


@pytest.mark.parametrize("num_bytes", [0, 1, 65_536, 65_537, 200_000])
def test_pieces_of_a_part_are_small_and_make_it(num_bytes):
    part = bytes(range(256)) * (num_bytes // 256) + b"x" * (num_bytes % 256)
    pieces = list(cut(part))
    assert b"".join(pieces) == part
    assert all(0 < len(piece) <= 65_536 for piece in pieces)
