"""What pages load: two scripts, a style sheet and an icon, all ours to serve, under addresses that change with them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from producer.api.problems import Problem

FOLDER = Path(__file__).parent / "static"
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
ONE_YEAR = "public, max-age=31536000, immutable"

router = APIRouter(prefix="/console/static", include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, read once."""

    name: str
    content: bytes
    packed: bytes

    @property
    def address(self) -> str:
        """Where it is; another one as soon as it says something else."""
        return f"/console/static/{self.name}?{hashlib.sha256(self.content).hexdigest()[:12]}"


def _read(name: str) -> Asset:
    content = (FOLDER / name).read_bytes()
    return Asset(name, content, gzip.compress(content, mtime=0))


ASSETS = {name: _read(name) for name in ("console.css", "console.js", "htmx.min.js", "icon.svg")}


@router.get("/{name}")
async def asset(name: str, request: Request) -> Response:
    """Return a file."""
    found = ASSETS.get(name)
    if found is None:
        raise Problem("not-found", "there is no such file")
    headers = {"Cache-Control": ONE_YEAR, "Vary": "Accept-Encoding"}
    packed = "gzip" in request.headers.get("accept-encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    kind = TYPES[name.rpartition(".")[2]]
    return Response(found.packed if packed else found.content, media_type=kind, headers=headers)
