"""An idle connection that was chosen to be closed serves no further request."""

import io
import socket
from types import SimpleNamespace

import gevent
import pytest
from gevent.pool import Pool

from app.server.connections import Connection
from app.server.gunicorn_worker import EdgeWorker
from app.service.slots import ConnectionSlots


@pytest.mark.parametrize("is_chosen", [False, True])
def test_request_that_meets_the_end_of_its_connection_is_not_begun(is_chosen):
    worker = object.__new__(EdgeWorker)
    worker._idle, worker._kept, worker._closing = set(), {}, {}
    worker._pool, worker.worker_connections = Pool(16), 16
    worker._slots = ConnectionSlots(16, "connections")
    worker._service = SimpleNamespace(settings=SimpleNamespace(keepalive_s=20))
    parser = SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO()))
    ours, theirs = socket.socketpair()
    ours = Connection(ours.family, ours.type, ours.proto, fileno=ours.detach())
    with ours, theirs:
        waiting = gevent.spawn(worker._is_used_again, parser, ours, "client")
        gevent.sleep(0)
        assert list(worker._kept.values()) == ["client"]
        if is_chosen:
            # As `_close_idle` does, just before the request comes.
            del worker._kept[waiting]
        theirs.sendall(b"GET")
        assert waiting.get(timeout=20) is not is_chosen
    assert not worker._idle
    assert not worker._kept
