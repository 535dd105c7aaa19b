"""The stylesheet and the scripts of the pages: read once, compressed once, kept by browsers for a year under their hash."""

from __future__ import annotations

import gzip
from hashlib import sha256
from pathlib import Path

from fastapi import Request, Response

from producer.errors import BadRequest

FOLDER = Path(__file__).parent / "files"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}


class NoSuchFile(BadRequest):
    status, code = 404, "not_found"


class Static:
    """Every file of the folder, whole and compressed."""

    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}
        self._packed = {name: gzip.compress(content, mtime=0) for name, content in self._files.items()}
        self._hashes = {name: sha256(content).hexdigest()[:12] for name, content in self._files.items()}

    def url(self, name: str) -> str:
        """Where a page loads the file; another content has another URL."""
        return f"/ui/static/{name}?v={self._hashes[name]}"

    def answer(self, request: Request, name: str) -> Response:
        """The file. Raises NoSuchFile."""
        if name not in self._files:
            raise NoSuchFile(f"there is no file {name}")
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        content = self._files[name]
        if "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = self._packed[name], "gzip"
        return Response(content, media_type=TYPES[Path(name).suffix], headers=headers)
