"""`failover init`: the files of a first day, for the API keys that are in the environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ops.local import session
from producer.environment import Environment, packaged, read_dotenv
from producer.errors import ConfigurationError, UsageError
from worker.routes.api_keys import of_variable
from worker.routes.known_providers import KnownProvider, keys_found, map_for, shipped_map_is_meant
from worker.routes.route import load_routes, read_routes

POLICIES = {  # those that a first day needs; the others have defaults
    "jobs.yaml": "deadlines and retries of each type of job",
    "budgets.yaml": "monthly caps: none yet",
    "oncall.yaml": "who gets messages: nobody yet",
}
FILES = ("ROUTES_FILE", "POLICIES_DIR")  # where they are, if elsewhere
DOTENV = Path(".env")
TOKEN = "FAILOVER_API_TOKEN"  # noqa: S105 - the name of a variable
PLAIN = re.compile(r"[\w./:,+=@%-]*", re.ASCII)  # a value that needs no quotes


@click.command()
@click.option("--force", is_flag=True, help="Overwrite routes.json and the policies; never .env.")
@click.pass_obj
def init(environment: Environment, force: bool) -> None:
    """Write routes.json, policies and .env for the API keys that are set. Asks nothing, and calls nobody."""
    try:
        found = keys_found(environment)
    except ConfigurationError:
        session.note(f"without a key: `{_command()} demo` runs a batch through an outage of simulated providers")
        raise
    for _, variable in found:
        of_variable(variable, environment)  # a key that cannot be one is an error before anything is written
    try:
        routes = json.dumps(_first_map(found, environment), indent=2) + "\n"
        _write(Path(environment.get("ROUTES_FILE") or "routes.json"), routes, "where jobs are answered", force=force)
        for name, holds in POLICIES.items():
            path = Path(environment.get("POLICIES_DIR") or "policies") / name
            _write(path, packaged(f"policies/{name}").read_text(encoding="utf-8"), holds, force=force)
        needed = {*FILES, *(variable for _, variable in found), *re.findall(r"\$\{(\w+)", routes)}
        _write_dotenv(environment, [name for name in sorted(needed) if environment.get(name, "").strip()])
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    routes_now = load_routes(environment).routes
    click.echo("\nRoutes, in the order in which they are tried:")
    for route in routes_now:
        click.echo(f"  {route.tier:4}  {route.name}  {', '.join(key.source for key in route.keys)}")
    click.echo(f"\nNext:\n  {_command()} submit 'Say hello' --wait\n  {_command()} up")


def _command() -> str:
    """`failover`, or as the user typed it where the shell does not find that: what is said next can be typed too."""
    typed = sys.argv[0]
    return "failover" if shutil.which("failover") or Path(typed).name != "failover" else typed


def _first_map(found: Sequence[tuple[KnownProvider, str]], environment: Environment) -> dict[str, Any]:
    """The map that is used without a file; where OpenAI's key is the only one, one with a hot route."""
    shipped = packaged("routes.json")
    if [provider.name for provider, _ in found] != ["openai"]:
        with contextlib.suppress(ConfigurationError):  # none of its routes can be used
            usable = read_routes(shipped, environment).routes
            if shipped_map_is_meant([route.entry.base_url for route in usable], environment):
                shipped_map: dict[str, Any] = json.loads(shipped.read_text(encoding="utf-8"))
                return shipped_map
    return map_for(found, environment)


def _write(path: Path, text: str, holds: str, *, force: bool) -> None:
    """Write the file, or say that it was left. Raises OSError."""
    if path.exists() and not force:
        _say("left", path, "it was there; --force overwrites it")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    _say("wrote", path, holds)


def _write_dotenv(environment: Environment, names: Sequence[str]) -> None:
    """Write the values of these variables, and a token, into a new .env that only this user can read. Raises OSError."""
    values = {name: environment[name].strip() for name in names}
    values[TOKEN] = environment.get(TOKEN) or secrets.token_hex(32)
    try:
        descriptor = os.open(DOTENV, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _say("left", DOTENV, "it was there; it is never overwritten")
        kept = read_dotenv(DOTENV)
        if missing := [name for name in names if name not in kept]:
            session.note(f"only this terminal has {', '.join(missing)}: other ones need it in .env")
        if others := [name for name in names if name in kept and kept[name] != environment[name].strip()]:
            session.note(
                f"{', '.join(others)} differs from the one in .env: this terminal uses its own, others read .env"
            )
        if DOTENV.stat().st_mode & 0o077:
            session.note("other users of this machine may read .env: `chmod 600 .env`")
    else:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(_dotenv_lines(values))
        _say("wrote", DOTENV, f"mode 600: {', '.join(values)}")
    if _git_would_commit(DOTENV):
        session.note("git does not ignore .env, which holds your keys: `echo .env >> .gitignore`")


def _dotenv_lines(values: dict[str, str]) -> Iterable[str]:
    yield "# The environment wins over this file. FAILOVER_API_TOKEN is what an app sends as its api_key.\n"
    for name, value in values.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        yield f"{name}={value}\n" if PLAIN.fullmatch(value) else f"{name}='{quoted}'\n"
    yield "# REDIS_URL=redis://localhost:6379/0    unset: an embedded Valkey under .failover/, for a laptop only\n"


def _git_would_commit(path: Path) -> bool:
    """Whether the folder is in a git repository that does not ignore the file. Without git: no."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["git", "check-ignore", "-q", path], capture_output=True, check=False).returncode == 1
    return False


def _say(done: str, path: Path, what: str) -> None:
    line = f"{done:5}  {path!s:22} {what}"
    click.echo(textwrap.fill(line, 80, subsequent_indent=" " * 30, break_long_words=False, break_on_hyphens=False))
