"""Where configuration comes from: the process environment, then a `.env` file, then the packaged example.

Every function takes the environment as an argument; only `load_environment` reads `os.environ`.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from producer.errors import ConfigurationError, Problem

Environment = Mapping[str, str]

_ON, _OFF = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}

_PACKAGED = Path(__file__).parent / "packaged"  # in a wheel
_CHECKOUT = Path(__file__).parent.parent  # in a checkout or an editable install


def load_environment(dotenv: Path | None = None) -> Environment:
    """The process environment, and for names that it does not have, the values of `.env` in the working folder.

    Raises ConfigurationError if `.env` is not a readable text file.
    """
    return ChainMap(dict(os.environ), read_dotenv(dotenv or Path(".env")))


def read_dotenv(path: Path) -> dict[str, str]:
    """The values of a `.env` file; none if there is no file. Raises ConfigurationError if it is not a readable text file."""
    try:
        return {key: value for key, value in dotenv_values(path).items() if value is not None}
    except (UnicodeDecodeError, OSError):
        raise ConfigurationError([Problem(str(path), "", "is not a readable text file")]) from None


def find_configuration(name: str, variable: str, environment: Environment) -> Path:
    """The path of a configuration file or folder: the value of `variable`, else in the working folder, else packaged.

    A path in `variable` is returned even if it does not exist, so that its reader reports it as missing.
    """
    if chosen := environment.get(variable):
        return Path(chosen)
    return Path(name) if Path(name).exists() else packaged(name)


def packaged(name: str) -> Path:
    """The path of a file that is part of failover-worker: in the wheel, or in the checkout."""
    return next((folder / name for folder in (_PACKAGED, _CHECKOUT) if (folder / name).exists()), Path(name))


def flag(environment: Environment, name: str, default: bool) -> bool:
    """An on/off variable: 1, true, yes, on (any case) are on; 0, false, no, off are off; unset or empty is `default`.

    Raises ConfigurationError for any other value.
    """
    value = environment.get(name, "").strip().lower()
    if not value:
        return default
    if value not in _ON | _OFF:
        raise ConfigurationError([Problem(name, "", f"{value!r} is neither on nor off", "use true or false")])
    return value in _ON


def is_http_url(url: str) -> bool:
    """Whether it is an http or https URL with a host, and a port that can be used if it names one."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
