"""The endpoints of the Hugging Face Hub that a download asks for, over a folder, on a free port.

Weights come by a redirect to another host, as the Hub's do. Connections break and bytes change as a
test wishes.
"""

import hashlib
import json
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from huggingface_hub import constants

Cut = Literal["close", "reset", "stall"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK_BYTES = 4096
NO_REVISION = {"X-Error-Code": "RevisionNotFound"}


@dataclass
class FakeHub:
    """One repository, `owner/name`, whose files are those of `folder`."""

    folder: Path
    name: str = "owner/name"
    cuts: list[tuple[int, Cut]] = field(default_factory=list)
    """How many bytes each of the next downloads of weights gives, and what it does then."""
    is_damaging: bool = False
    """Whether one byte of weights changes on its way."""
    is_refusing: bool = False
    """Whether every request is answered with 503."""
    ranges: list[str | None] = field(default_factory=list)
    """The header `Range` of every download of weights."""
    commit: str = COMMIT
    """What the branch `main` leads to."""
    older: dict[str, Path] = field(default_factory=dict)
    """The folders of earlier commits."""
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "FakeHub":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is."""
        return f"http://127.0.0.1:{self.port}"

    def push(self, folder: Path, commit: str) -> None:
        """Have `main` lead to the files of `folder`; the earlier commits stay."""
        self.older[self.commit] = self.folder
        self.folder, self.commit = folder, commit

    def folder_of(self, commit: str) -> Path | None:
        """The files of a commit, None if there is no such commit."""
        return self.folder if commit == self.commit else self.older.get(commit)

    def sha256(self, file: Path) -> str:
        """The checksum of a file as it is in the repository."""
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def tree(self, folder: Path) -> list[dict[str, Any]]:
        """What a commit holds, as the Hub lists it."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [self._entry(folder, file) for file in files]

    def _entry(self, folder: Path, file: Path) -> dict[str, Any]:
        size = file.stat().st_size
        entry = {
            "type": "file",
            "oid": "0" * 40,
            "size": size,
            "path": str(file.relative_to(folder)),
        }
        if file.suffix != ".safetensors":
            return entry
        return {**entry, "lfs": {"oid": self.sha256(file), "size": size, "pointerSize": 134}}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.is_refusing:
            self._answer(503, {})
        elif path.startswith("/cdn/"):
            commit, _, name = path.removeprefix("/cdn/").partition("/")
            self._give_weights(self._folder(commit) / name)
        elif path == f"/api/models/{hub.name}":
            self._tell_commit("main")
        elif path.startswith(f"/api/models/{hub.name}/revision/"):
            self._tell_commit(path.rpartition("/")[2])
        elif path.startswith(f"/api/models/{hub.name}/tree/"):
            self._list(hub.folder_of(path.rpartition("/")[2]))
        elif path.startswith(f"/{hub.name}/resolve/"):
            commit, _, name = path.removeprefix(f"/{hub.name}/resolve/").partition("/")
            self._resolve(commit, self._folder(commit) / name)
        else:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def _folder(self, commit: str) -> Path:
        folder = self.hub.folder_of(commit)
        assert folder is not None
        return folder

    def _tell_commit(self, revision: str) -> None:
        commit = self.hub.commit if revision == "main" else revision
        if self.hub.folder_of(commit) is None:
            self._answer(404, NO_REVISION)
        else:
            reply = {"id": self.hub.name, "sha": commit}
            self._answer(200, {}, json.dumps(reply).encode())

    def _list(self, folder: Path | None) -> None:
        if folder is None:
            self._answer(404, NO_REVISION)
        else:
            self._answer(200, {}, json.dumps(self.hub.tree(folder)).encode())

    def _resolve(self, commit: str, file: Path) -> None:
        headers = {"X-Repo-Commit": commit}
        if file.suffix != ".safetensors":
            etag = hashlib.sha1(file.read_bytes()).hexdigest()
            self._answer(200, {**headers, "ETag": f'"{etag}"'}, file.read_bytes())
            return
        place = f"{commit}/{file.relative_to(self._folder(commit))}"
        linked = {
            "X-Linked-Etag": f'"{self.hub.sha256(file)}"',
            "X-Linked-Size": str(file.stat().st_size),
            "Location": f"http://localhost:{self.hub.port}/cdn/{place}",
        }
        self._answer(302, {**headers, **linked})

    def _give_weights(self, file: Path) -> None:
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        body = bytearray(file.read_bytes())
        if self.hub.is_damaging:
            body[-1] ^= 1
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if asked else {}
        self._answer(206 if asked else 200, headers, bytes(body[start:]), is_cut=True)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes = b"", *, is_cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if is_cut and self.hub.cuts:
            num_bytes, cut = self.hub.cuts.pop(0)
            self.wfile.write(body[:num_bytes])
            self._cut(cut)
            return
        for start in range(0, len(body), CHUNK_BYTES):
            self.wfile.write(body[start : start + CHUNK_BYTES])

    def _cut(self, cut: Cut) -> None:
        self.wfile.flush()
        self.close_connection = True
        if cut == "stall":
            self.hub.closing.wait()
        elif cut == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()


def ask_hub(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub ask `hub`, in this process, and keep what it gives in `cache`."""
    # As HF_ENDPOINT and HF_HUB_CACHE would have it, which are read when the package is imported.
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    # What has come of a chunk is lost when the connection breaks; by default it is 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
