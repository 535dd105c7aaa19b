"""What cannot be right about the address of a route, from its text alone: the provider would answer 404."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ops.importers.litellm.prefixes import of_host
from worker.routes.route import Route

_CALL = re.compile(r"/(?:chat/completions|completions|responses|embeddings|models|messages|complete)$")
_AZURE = (
    ".openai.azure.com",
    ".openai.azure.us",
    ".openai.azure.cn",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
)
_GEMINI = "generativelanguage.googleapis.com"
_OLLAMA_PORT = 11434
_NATIVE = "is an address of Anthropic's dialect: set `api` to anthropic"


def address_problem(route: Route) -> str | None:
    """The problem with the fix; None if the address may be right."""
    url, native = route.base_url, route.entry.api == "anthropic"
    parts = urlsplit(url)
    host, path = (parts.hostname or "").lower(), parts.path.rstrip("/")
    if parts.query or parts.fragment:
        return "has a query, and the path of each call is added after it: remove it"
    if found := _CALL.search(path):
        return f"ends with {found[0]}, which is added to it for each call: remove it"
    if path.endswith("/v1/v1"):
        return "has /v1 twice: remove one"
    if native:
        return "is OpenAI's, but the route has `api` anthropic: remove it" if host == "api.openai.com" else None
    return _of_openai_dialect(host, path, parts.port, url)


def _of_openai_dialect(host: str, path: str, port: int | None, url: str) -> str | None:
    if host.endswith(_AZURE):
        right = f"Azure answers at https://{host}/openai/v1, with the deployment as the model"
        if path.endswith("/anthropic"):
            return _NATIVE
        return f"cannot be right: {right}" if path != "/openai/v1" else None
    if path.endswith("/anthropic"):
        return _NATIVE
    if host == _GEMINI and not path.endswith("/openai"):
        return f"is Gemini's own API: use https://{_GEMINI}/v1beta/openai"
    if host.endswith("aiplatform.googleapis.com") and not path.endswith("/endpoints/openapi"):
        return "is Vertex's own API: use .../v1/projects/PROJECT/locations/LOCATION/endpoints/openapi"
    if port == _OLLAMA_PORT and not path.endswith("/v1"):
        return f"is Ollama's own API: use {url.split('/api')[0]}/v1"
    if not path and (known := of_host(url)) and known.address and not known.bare and urlsplit(known.address).path:
        return f"has no path: {known.provider} answers at {known.address}"
    return None
