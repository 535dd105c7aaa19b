"""From an `api_base` of a LiteLLM config to the base URL of a route: LiteLLM's rules for each prefix.

LiteLLM takes an address with and without the path of its last call; a route's base URL has none of it. Source: the
`get_complete_url` of LiteLLM's providers, as of the table's date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ops.importers.litellm.prefixes import Prefix, host_of

_CALLS = re.compile(r"(?:/(?:chat/completions|completions|messages|responses|embeddings|models))+$")
_TWICE = re.compile(r"(/v1)(?:/v1)+$")
_DEPLOYMENT = re.compile(r"^(.{0,999}?)(?:/openai)?/deployments/([^/]+)")
_LOCAL = re.compile(r"^(localhost|[\d.]{1,39}|host\.docker\.internal|[\w-]{1,63})(:\d{1,5})?(/|$)")
_VERTEX = re.compile(
    r"^(https://[\w-]{0,63}aiplatform\.googleapis\.com)/v1(?:beta1)?/(projects/[^/]{1,99}/locations/[^/]{1,99})"
)


@dataclass
class Address:
    """`model`: what the address itself says of the model; `notes`: what a person should know; `wrong`: why there is none."""

    url: str = ""
    model: str = ""
    api: str = ""
    notes: list[str] = field(default_factory=list)
    wrong: str = ""


def address_of(base: str, row: Prefix, model: str) -> Address:
    """`base`: with variables as `${NAME}`."""
    found = Address()
    text = base if "://" in base or base.startswith("${") else _with_scheme(base, found)
    text = re.split(r"[?#]", text, maxsplit=1)[0].rstrip("/")
    text = _TWICE.sub(r"\1", _CALLS.sub("", text).rstrip("/"))
    match row.rule:
        case "azure":
            _azure(text, model, found)
        case "azure_ai":
            _azure_ai(text, model, found)
        case "gemini":
            _gemini(text, model, found)
        case "ollama":
            found.url = re.sub(r"/api(?:/(?:chat|generate))?$|/v1$", "", text) + "/v1"
        case "known" if row.owns(host_of(text)):
            found.url = row.address or text
        case _:
            _plain(text, row, found)
    return found


def _with_scheme(base: str, found: Address) -> str:
    scheme = "http" if _LOCAL.match(base) else "https"
    found.notes.append(f"its api_base has no scheme: {scheme}:// is assumed")
    return f"{scheme}://{base}"


def _plain(text: str, row: Prefix, found: Address) -> None:
    bare = bool(host_of(text)) and not urlsplit(text).path
    found.url = text
    if row.ends and not text.endswith(row.ends):
        found.url = text + row.ends
    elif bare and row.if_bare:
        found.url = text + row.if_bare
        found.notes.append(f"its api_base has no path: {row.if_bare} is added, where such servers answer")
    elif bare and not row.bare and row.address and row.owns(host_of(text)) and urlsplit(row.address).path:
        found.url = f"{text}{urlsplit(row.address).path}"


def _azure(text: str, model: str, found: Address) -> None:
    """Azure's /openai/v1 takes the deployment as the model, and no api-version."""
    if host_of(text) == "gateway.ai.cloudflare.com":
        found.url = text
        found.notes.append(f"{text} is a gateway that wants Azure's older API: check that it takes this one")
        return
    if deployed := _DEPLOYMENT.match(text):
        text, found.model = deployed[1], deployed[2]
        if found.model != model:
            found.notes.append(f"its api_base names the deployment {found.model}, which is called instead of {model}")
    found.url = re.sub(r"(?:/openai)?(?:/v1)?$", "", text).rstrip("/") + "/openai/v1"
    host = host_of(text)
    if host and not host.endswith((".azure.com", ".azure.us", ".azure.cn")):
        found.notes.append(f"{host} is not a host of Azure: check that it passes /openai/v1 on")


def _azure_ai(text: str, model: str, found: Address) -> None:
    """A resource of Azure AI Foundry answers like Azure's OpenAI, its Claude models like Anthropic; a model's own host is
    taken as it is."""
    host, root = host_of(text), re.sub(r"/(?:models|anthropic|openai)(?:/v1)?$|/v1$", "", text)
    if "claude" in model.lower():
        found.url, found.api = f"{root}/anthropic", "anthropic"
    elif host.endswith((".services.ai.azure.com", ".openai.azure.com", ".cognitiveservices.azure.com")):
        _azure(root, model, found)
    else:
        found.url = text


def _gemini(text: str, model: str, found: Address) -> None:
    """The OpenAI-compatible path of the host; Vertex has another one, and other keys."""
    if host_of(text).endswith("aiplatform.googleapis.com"):
        if vertex := _VERTEX.match(text):
            own = text.endswith("/endpoints/openapi")
            found.url = text if own else f"{vertex[1]}/v1/{vertex[2]}/endpoints/openapi"
            found.model = "" if "/" in model else "google/"
            found.notes.append("a Vertex address takes access tokens that last an hour, not Gemini's API keys")
        else:
            found.wrong = (
                "its api_base is Vertex's, without a project and a location: remove it, or put a gateway before it"
            )
        return
    found.url = re.sub(r"(?:/v1(?:beta|alpha)?)?(?:/openai)?(?:/models/.*)?$", "", text) + "/v1beta/openai"
