"""The archive: a folder, and an object store that speaks S3, each by the same rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from aiohttp import web

from ops.simulators.http_server import running
from producer.errors import ConfigurationError
from worker.history.archive import Archive, Folder, archive_of


class Bucket:
    """The part of S3 that is needed: put, get and list."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses = False

    async def answer(self, request: web.Request) -> web.Response:
        if self.refuses:
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        key = request.path.removeprefix("/months").strip("/")
        if request.method == "PUT":
            self.objects[key] = await request.read()
            return web.Response(headers={"ETag": '"1"'})
        if "list-type" in request.query:
            names = sorted(name for name in self.objects if name.startswith(request.query.get("prefix", "")))
            entry = "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            inner = "".join(entry.format(escape(name)) for name in names)
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{inner}</ListBucketResult>"
            return web.Response(text=body, content_type="application/xml")
        if key not in self.objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return web.Response(body=self.objects[key], headers=headers)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", bucket.answer)
    with running(app) as url:
        variables = {"ENDPOINT_URL": url, "REGION": "eu-1", "ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret"}
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield bucket


def keeps_files(archive: Archive) -> None:
    archive.write("ledger/2026-11/1-0_9-0.jsonl.gz", b"one")
    archive.write("ledger/2026-11/1-0_9-0.jsonl.gz", b"one")
    archive.write("ledger/2026-12/1-0_9-0.jsonl.gz", b"two" * 1_000_000)
    archive.write("history/2026-11-01.jsonl.gz", b"three")
    assert archive.read("ledger/2026-12/1-0_9-0.jsonl.gz") == b"two" * 1_000_000
    assert archive.names("ledger/") == ["ledger/2026-11/1-0_9-0.jsonl.gz", "ledger/2026-12/1-0_9-0.jsonl.gz"]
    assert archive.names("ledger/2026-12/") == ["ledger/2026-12/1-0_9-0.jsonl.gz"]
    with pytest.raises(OSError, match=r"."):
        archive.read("ledger/none")


def test_a_folder_keeps_files(tmp_path: Path) -> None:
    keeps_files(Folder(tmp_path / "not" / "there"))
    assert not list(tmp_path.rglob(".*")), "no half file is left"


def test_an_object_store_keeps_files(bucket: Bucket) -> None:
    archive = archive_of({"HISTORY_URL": "s3://months/failover"})
    assert archive is not None
    keeps_files(archive)
    assert set(bucket.objects) >= {"failover/history/2026-11-01.jsonl.gz"}
    bucket.refuses = True
    with pytest.raises(OSError, match=r"AccessDenied|403"):
        archive.write("x", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_nothing_is_an_os_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="denied"):
        Folder(tmp_path / "in").write("x", b"x")


def test_history_url_names_a_place_or_says_what_is_wrong(tmp_path: Path) -> None:
    assert archive_of({}) is None
    for url in (str(tmp_path), f"file://{tmp_path}"):
        archive = archive_of({"HISTORY_URL": url})
        assert isinstance(archive, Folder)
        archive.write("a", b"b")
        assert (tmp_path / "a").read_bytes() == b"b"
    for url, word in (("http://example.com", "no place for files"), ("s3://", "s3")):
        with pytest.raises(ConfigurationError) as found:
            archive_of({"HISTORY_URL": url})
        assert word in str(found.value)
