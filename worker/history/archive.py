"""Where history is written when it leaves Redis: HISTORY_URL, a folder or an object store (s3://, gs://, az://).

A file is written once and never changed. Writing it again with the same content does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem

VARIABLE = "HISTORY_URL"
STORES = ("s3", "gs", "az")


class Archive(Protocol):
    """A place for files, by name: parts separated by slashes. The methods block. Each raises OSError if the place does not
    take or give the file."""

    def write(self, name: str, content: bytes) -> None:
        """Keep a file for good. When this returns, it is safe."""

    def read(self, name: str) -> bytes: ...

    def names(self, prefix: str) -> list[str]:
        """The names that begin with `prefix`, in order."""

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""


class Folder:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, content: bytes) -> None:
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(target)
        parent = os.open(target.parent, os.O_RDONLY)  # else a crash of the machine may forget the name
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        found = (path.relative_to(self._path).as_posix() for path in self._path.rglob("[!.]*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class ObjectStore:
    """A bucket, or a part of one. obstore reads the usual variables: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_REGION."""

    def __init__(self, url: str) -> None:
        import obstore  # an extra, which only these addresses need

        self._obstore = obstore
        self._store = obstore.store.from_url(url, client_options={"allow_http": True, "timeout": "30s"})

    def write(self, name: str, content: bytes) -> None:
        with self._as_os_error():
            self._obstore.put(self._store, name, content)

    def read(self, name: str) -> bytes:
        with self._as_os_error():
            return bytes(self._obstore.get(self._store, name).bytes())

    def names(self, prefix: str) -> list[str]:
        folder = prefix.rpartition("/")[0] or None
        with self._as_os_error():
            found = [entry["path"] for page in self._obstore.list(self._store, folder) for entry in page]
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        with self._as_os_error():
            self._obstore.delete(self._store, name)

    @contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except self._obstore.exceptions.BaseError as error:
            raise OSError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def archive_of(environment: Environment, variable: str = VARIABLE) -> Archive | None:
    """The archive that the variable names; None without one. Raises ConfigurationError if it cannot be used."""
    url = environment.get(variable, "").strip()
    if not url:
        return None
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return Folder(Path(rest if separator else url).expanduser())
    if scheme not in STORES:
        fix = "give a folder (/var/lib/failover or file:///var/lib/failover), or s3://bucket/folder"
        raise ConfigurationError([Problem(variable, "", f"{scheme}:// is no place for files", fix)])
    try:
        return ObjectStore(url)
    except ImportError:
        fix = "pip install 'failover-worker[history]'"
        raise ConfigurationError([Problem(variable, "", f"{scheme}:// needs a library", fix)]) from None
    except Exception as error:  # noqa: BLE001 - obstore has no common class for a wrong address
        fix = "as in s3://bucket/folder, with AWS_REGION and AWS_ACCESS_KEY_ID"
        raise ConfigurationError([Problem(variable, "", _first_line(error), fix)]) from None
