"""A backup rewrites the append-only file, even if another rewrite runs already."""

import io
import re
import socket
import threading
from contextlib import contextmanager

import pytest

from contract.settings import REDIS_SOCKET, REPOSITORY
from deploy.backup import rewriting
from deploy.backup.errors import StateFailed
from deploy.backup.rewriting import SOCKET, rewrite_aof

IDLE = "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\naof_last_bgrewrite_status:ok\r\n"
RUNS = IDLE.replace("progress:0", "progress:1")
BEGUN = "+Background append only file rewriting started"
RUNS_ALREADY = "-ERR Background append only file rewriting already in progress"


@contextmanager
def redis_that_answers(folder, *answers):
    """A Redis that gives these answers to the commands after AUTH; yields the commands."""
    commands = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as client:
            for answer in ("-WRONGPASS", *answers):
                commands.append(client.readline().decode().strip())
                line = answer if answer[0] in "+-" else f"${len(answer)}\r\n{answer}"
                client.write(f"{line}\r\n".encode())
                client.flush()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield commands
        thread.join()


def test_rewrite_that_a_web_server_begins_meanwhile_is_waited_for(tmp_path):
    answers = (RUNS, IDLE, RUNS_ALREADY, RUNS, IDLE, BEGUN, RUNS, IDLE)
    with redis_that_answers(tmp_path, *answers) as commands:
        assert rewrite_aof(tmp_path)
    info, rewrite = "INFO persistence", "BGREWRITEAOF"
    assert commands[1:] == [info, info, rewrite, info, info, rewrite, info, info]


def test_other_refusals_are_not_tried_again(tmp_path):
    with (
        redis_that_answers(tmp_path, IDLE, "-NOPERM no permission"),
        pytest.raises(StateFailed, match="NOPERM"),
    ):
        rewrite_aof(tmp_path)


def test_rewrites_without_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(rewriting, "MAX_REWRITE_S", -1.0)
    with (
        redis_that_answers(tmp_path),
        pytest.raises(StateFailed, match="has not finished rewriting its file"),
    ):
        rewrite_aof(tmp_path)


def test_answer_without_a_value_is_not_waited_for():
    answers = io.BufferedRWPair(io.BytesIO(b"$-1\r\n+OK\r\n"), io.BytesIO())
    asked = [rewriting._ask(answers, command) for command in ("SET a 0 NX", "PING")]
    assert asked == ["$-1", "+OK"]


def test_backup_and_service_name_the_same_socket():
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    (in_container,) = re.findall(r'"--unixsocket", "/data/([^"]+)"', compose)
    assert SOCKET == REDIS_SOCKET == in_container
