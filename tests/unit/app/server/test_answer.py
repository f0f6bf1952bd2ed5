"""An answer leaves in as few writes as its pieces need."""

from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from app.server.answer import JOINED_BYTES, Answer


class Connection:
    """Keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.writes.append(bytes(data))


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def answer(connection: Connection) -> Answer:
    request = SimpleNamespace(version=(1, 1), method="GET", headers=[], should_close=lambda: False)
    return Answer(request, connection, Config())


def test_header_and_first_piece_are_one_write(answer, connection):
    answer.start_response("200 OK", [("Content-Length", "6")])
    answer.write(b"one")
    answer.write(b"two")
    answer.close()
    head, _, body = connection.writes[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (body, connection.writes[1:]) == (b"one", [b"two"])


def test_pieces_of_unknown_length_keep_their_frames(answer, connection):
    answer.start_response("200 OK", [])
    answer.write(b"one")
    answer.close()
    assert b"".join(connection.writes).endswith(b"\r\n\r\n3\r\none\r\n0\r\n\r\n")
    assert connection.writes[0].endswith(b"3\r\none\r\n")


def test_large_piece_is_not_copied_behind_the_header(answer, connection):
    answer.start_response("200 OK", [("Content-Length", str(JOINED_BYTES + 1))])
    answer.write(b"x" * (JOINED_BYTES + 1))
    assert [len(each) for each in connection.writes[1:]] == [JOINED_BYTES + 1]
