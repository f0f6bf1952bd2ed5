"""Serves scripts, styles and icons of the pages, under a path that changes with their content."""

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Response, abort, url_for

FOLDER = Path(__file__).parent.parent / "static"
ROUTE = "/static/<version>/<name>"
# The path changes with the content, so a browser may keep the file forever.
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Assets:
    """The files of one folder, held in memory."""

    bodies: dict[str, bytes]
    version: str
    """A digest of all files together, because scripts import each other by relative paths."""

    @classmethod
    def load(cls, folder: Path = FOLDER) -> "Assets":
        """Read all files of `folder`."""
        bodies = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        digest = hashlib.sha256()
        for name, body in bodies.items():
            digest.update(f"{name} {len(body)} ".encode() + body)
        return cls(bodies, digest.hexdigest()[:16])

    def url(self, name: str) -> str:
        """The path of a file, for a template."""
        assert name in self.bodies, name
        return url_for("assets.asset", version=self.version, name=name)


def asset_routes(assets: Assets) -> Blueprint:
    """Routes that serve `assets`; templates get their paths from `asset(name)`."""
    routes = Blueprint("assets", __name__)
    routes.app_template_global("asset")(assets.url)

    @routes.get(ROUTE)
    def asset(version: str, name: str) -> Response:
        """Serve one file of this version."""
        if version != assets.version or name not in assets.bodies:
            abort(404)
        media_type, _ = mimetypes.guess_type(name)
        return Response(
            assets.bodies[name], mimetype=media_type, headers={"Cache-Control": FOREVER}
        )

    return routes
