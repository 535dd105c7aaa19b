"""Where the calls of one deployment go: provider, model, base URL, dialect. The prefix says it, else custom_llm_provider, the
host, the name of the model, the key. A key is never sent to the host of another provider than its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ops.importers.litellm.address import Address, address_of
from ops.importers.litellm.prefixes import Prefix, of_host, of_key, of_name, of_variable, prefixes
from ops.importers.litellm.values import PLACEHOLDER, lone_variable
from producer.environment import Environment

_OPENAI_LIKE = ("openai", "custom_openai", "openai_like", "aiohttp_openai", "custom")
_SERIES = re.compile(r"^(?:o_series|gpt5_series|responses)/(?=.)")  # how LiteLLM treats the model, no part of its id

Note = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the config says of a target, with variables as `${NAME}`; `base` and `key` None: nothing. `settings`: addresses
    that the config sets as variables."""

    model: str
    custom: str
    base: str | None
    key: str | None
    settings: Environment
    environment: Environment


@dataclass(frozen=True)
class Target:
    """A base URL and what to call there. `variables`: where LiteLLM looks for the key if the config has none."""

    provider: str
    model: str
    base_url: str
    api: str
    variables: tuple[str, ...]


class NoTargetError(Exception):
    """Why the deployment has no route, and what to do."""


def target_of(asked: Asked, note: Note) -> Target:
    """`note`: gets what is only approximated. Raises NoTargetError."""
    if "*" in asked.model:
        raise NoTargetError(f"{asked.model} stands for many models: add an entry for each one that you use")
    row, model = _row_of(asked, note)
    if row.left_out:
        raise NoTargetError(f"{row.name} has no counterpart: {row.left_out}")
    row, model = _of_its_key(asked, row, model, note)
    base = asked.base if asked.base is not None else _own_base(asked, row)
    row = _at_its_host(asked, row, note)
    if row.note:
        note(row.note)
    model = _model_id(asked, row, model, note)
    address = Address(base) if asked.base is None and base == row.address else address_of(base, row, model)
    if address.wrong:
        raise NoTargetError(address.wrong)
    for text in address.notes:
        note(text)
    if address.model:
        model = f"{address.model}{model}" if address.model.endswith("/") else address.model
    if found := PLACEHOLDER.search(f"{model} {address.url}"):
        note(f"{found[0]} looks like a placeholder: fill it in")
    return Target(row.provider, model, address.url, address.api or row.api, row.keys)


def _row_of(asked: Asked, note: Note) -> tuple[Prefix, str]:
    """(the provider, the model as it stands after LiteLLM's prefix)."""
    known, model = prefixes(), asked.model
    prefix, slash, rest = model.partition("/")
    if asked.custom:
        name = model.removeprefix(f"{asked.custom}/")
        if row := known.get(asked.custom):
            return row, name
        return _at_base(asked, name, f"custom_llm_provider {asked.custom}", note)
    if slash and prefix in known:
        return known[prefix], rest
    if asked.base is not None and (row := of_host(asked.base)):
        return row, model
    if row := of_name(model):
        return row, model
    if rows := _rows_of_key(asked.key):
        own_vendor = slash and not rows[0].vendor_ids and prefix in (rows[0].provider, rows[0].vendor)
        return rows[0], rest if own_vendor else model
    if lone_variable(model):
        return _of_variable(asked, model, note)
    return _at_base(asked, model, f"the prefix of {model}" if slash else f"the name {model}", note)


def _at_base(asked: Asked, model: str, what: str, note: Note) -> tuple[Prefix, str]:
    """An unknown provider: OpenAI's dialect at the address of the config."""
    if asked.base is None:
        raise NoTargetError(
            f"{what} names no known provider: add LiteLLM's prefix, or an api_base that speaks OpenAI's API"
        )
    note(f"{what} names no known provider: OpenAI's dialect is spoken at its api_base")
    return prefixes()["openai"], model


def _of_variable(asked: Asked, model: str, note: Note) -> tuple[Prefix, str]:
    variable = lone_variable(model)
    prefix = asked.environment.get(variable, "").partition("/")[0]
    row = prefixes().get(prefix)
    if row is None and asked.base is None:
        note(f"nothing names the provider of {model}: OpenAI's host is assumed")
    return row or prefixes()["openai"], model


def _rows_of_key(key: str | None) -> list[Prefix]:
    if key is None:
        return []
    if variable := lone_variable(key):
        return of_variable(variable)
    return [row] if (row := of_key(key)) else []


def _of_its_key(asked: Asked, row: Prefix, model: str, note: Note) -> tuple[Prefix, str]:
    """Without an api_base, a key that is by its name another provider's goes there, and not to the one of the model."""
    theirs = _rows_of_key(asked.key)
    if asked.base is not None or not theirs or not row.keys or row.provider in {each.provider for each in theirs}:
        return row, model
    owner = theirs[0]
    if owner.name == "openai":  # the name of such a variable says the least
        note(f"its key is named as one of openai, and is sent to {row.provider}, as LiteLLM does")
        return row, model
    if owner.vendor_ids and "/" not in model:
        model = f"{row.vendor or row.provider}/{model}"
    note(f"its key is one of {owner.provider}, so it is called there as {model}, and not at {row.provider}")
    return owner, model


def _at_its_host(asked: Asked, row: Prefix, note: Note) -> Prefix:
    """OpenAI's and Anthropic's dialects are spoken by others too: at the host of a known provider the route is that one's."""
    if asked.base is None or row.name not in (*_OPENAI_LIKE, "anthropic"):
        return row
    at = of_host(asked.base)
    if at is None:
        if asked.key is None and row.name in _OPENAI_LIKE:
            told = f"has no api_key, so {row.keys[0]} is sent to {asked.base}, as LiteLLM does"
            note(f"{told}: `api_key: none` if it needs none")
        return row
    if row.name == "anthropic":
        return row.model_copy(update={"provider": at.provider, "keys": at.keys})
    return at.model_copy(update={"api": row.api})


def _own_base(asked: Asked, row: Prefix) -> str:
    """The address without an api_base: what the config or, for a server of one's own, the environment sets; else the known
    one."""
    if given := next((asked.settings[name] for name in row.bases if name in asked.settings), None):
        return given
    own_server = row.address is None or not row.keys
    if own_server and (name := next((name for name in row.bases if asked.environment.get(name)), None)):
        return f"${{{name}}}"
    if row.address is not None:
        return row.address
    if row.bases:
        return f"${{{row.bases[0]}}}"
    raise NoTargetError(f"{row.name} needs an api_base: add it")


def _model_id(asked: Asked, row: Prefix, model: str, note: Note) -> str:
    """The id as the provider knows it."""
    if row.name in ("azure", "openai"):
        model = _SERIES.sub("", model)
    if row.model_prefix and not model.startswith(("accounts/", "${")) and "#" not in model:
        return row.model_prefix + model
    if row.name == "openrouter" and "/" not in model and not model.startswith("${"):
        maker = of_name(model)
        if maker is not None and maker.vendor:
            note(f"OpenRouter's ids name the maker: it is called as {maker.vendor}/{model}")
            return f"{maker.vendor}/{model}"
        return f"openrouter/{model}" if asked.model.startswith("openrouter/") else model  # openrouter/auto is an id
    if row.rule == "huggingface" and asked.base is None and model.count("/") > 1:
        served_by, _, model = model.partition("/")
        return f"{model}:{served_by}"
    return model
