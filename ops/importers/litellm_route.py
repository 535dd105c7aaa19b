"""Converts one deployment of a LiteLLM config to a route, with notes for a person."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

# LiteLLM's prefix -> our provider, its endpoint, our dialect, the variable from which LiteLLM reads the key.
_PROVIDERS = {
    "openai": ("openai", "https://api.openai.com/v1", "openai", "OPENAI_API_KEY"),
    "anthropic": ("anthropic", "https://api.anthropic.com/v1", "anthropic", "ANTHROPIC_API_KEY"),
    "gemini": ("google", "https://generativelanguage.googleapis.com/v1beta/openai", "openai", "GEMINI_API_KEY"),
    "mistral": ("mistral", "https://api.mistral.ai/v1", "openai", "MISTRAL_API_KEY"),
    "groq": ("groq", "https://api.groq.com/openai/v1", "openai", "GROQ_API_KEY"),
    "deepseek": ("deepseek", "https://api.deepseek.com/v1", "openai", "DEEPSEEK_API_KEY"),
    "openrouter": ("openrouter", "https://openrouter.ai/api/v1", "openai", "OPENROUTER_API_KEY"),
    "xai": ("xai", "https://api.x.ai/v1", "openai", "XAI_API_KEY"),
    "together_ai": ("together", "https://api.together.xyz/v1", "openai", "TOGETHERAI_API_KEY"),
    "fireworks_ai": ("fireworks", "https://api.fireworks.ai/inference/v1", "openai", "FIREWORKS_AI_API_KEY"),
    "litellm_proxy": ("litellm", None, "openai", "LITELLM_PROXY_API_KEY"),
    "hosted_vllm": ("vllm", None, "openai", ""),
    "ollama": ("ollama", None, "openai", ""),
    "ollama_chat": ("ollama", None, "openai", ""),
    "azure": ("azure", None, "openai", "AZURE_API_KEY"),
}
_SUFFIXES = {"ollama": "/v1", "ollama_chat": "/v1", "azure": "/openai/v1"}  # the path of their OpenAI-compatible API
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_PLACEHOLDER = re.compile(r"<[^<>]*>|\byour[-_]|\*", re.IGNORECASE)
_DIRECT = {"timeout": "timeoutSeconds", "stream_timeout": "streamTimeoutSeconds", "rpm": "rpm", "tpm": "tpm"}
_DIRECT |= {"weight": "weight", "max_parallel_requests": "maxConcurrency"}
_PARAMS = {*_DIRECT, "model", "api_key", "api_base", "base_url", "order", "max_retries", "num_retries"}
_COSTS = ("input_cost_per_token", "output_cost_per_token")
_ABLE = {
    "supports_function_calling": ["tools"],
    "supports_response_schema": ["json_mode", "json_schema"],
    "supports_vision": ["vision"],
}
_INFO = {"id", "mode", "max_input_tokens", "max_output_tokens", *_COSTS, *_ABLE}
MOST_RETRIES = 5


@dataclass
class Reading:
    """The settings of the whole file, and the notes so far."""

    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def number(value: Any) -> float | int | None:
    """A finite number that is not negative, also one in quotes; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value) if float(value).is_integer() else value


@dataclass
class Deployment:
    """One entry of model_list. `where`: its name in notes."""

    where: str
    entry: dict[str, Any]

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.entry["litellm_params"]
        return params

    @property
    def info(self) -> dict[str, Any]:
        info = self.entry.get("model_info")
        return info if isinstance(info, dict) else {}

    @property
    def order(self) -> float | None:
        return number(self.params.get("order"))

    def route(self, reading: Reading) -> dict[str, Any] | None:
        """The route; None if it has no counterpart, with the reason in the notes."""

        def note(text: str) -> None:
            reading.notes.append(f"{self.where}: {text}")

        target = self._target(note)
        if target is None:
            return None
        route, own_variable = target
        route |= self._key(own_variable, note)
        self._limits(route, reading, note)
        self._model_info(route, note)
        info = {str(name) for name in self.info} - _INFO
        unread = sorted({str(name) for name in self.params} - _PARAMS - {*_COSTS})
        for name in [*unread, *(f"model_info.{name}" for name in sorted(info))]:
            note(f"{name} has no counterpart")
        return route

    def _target(self, note: Any) -> tuple[dict[str, Any], str] | None:
        model, base = self.params.get("model"), self._base()
        if isinstance(model, list) and len(model) == 1:  # [PROVIDER_A_MODEL_ID]: YAML reads a placeholder as a list
            variable, found = _variable(model[0]), _VARIABLE.fullmatch(str(self.params.get("api_key")))
            provider = re.sub(r"_(API_)?KEY$", "", found[1]).lower() if found else "provider"
            if base is None:
                note(f"has no api_base, so the address of {variable} is unknown; it is left out")
                return None
            note(f"set {variable} to the model's id, as {base} knows it")
            return {"provider": provider, "model": f"${{{variable}}}", "baseUrl": base}, f"{provider.upper()}_API_KEY"
        if not isinstance(model, str) or not model:
            note("has no model; it is left out")
            return None
        prefix, slash, name = model.partition("/")
        prefix, name = (prefix, name) if slash else ("openai", model)
        if "*" in name or prefix not in _PROVIDERS:
            what = f"{model} is not a single model" if "*" in name else f"{prefix} has no counterpart"
            note(f"{what}; use an OpenAI-compatible gateway for it. It is left out")
            return None
        provider, own_base, api, variable = _PROVIDERS[prefix]
        if base is not None and prefix in _SUFFIXES:
            base = base.removesuffix("/v1").removesuffix("/openai").rstrip("/") + _SUFFIXES[prefix]
        if (url := base or own_base) is None:
            note(f"{prefix} needs an api_base; it is left out")
            return None
        if found := _PLACEHOLDER.search(f"{name} {url}"):
            note(f"{found[0]} looks like a placeholder: fill it in")
        route = {"provider": provider, "model": _VARIABLE.sub(r"${\1}", name), "baseUrl": url}
        return (route | {"api": api} if api != "openai" else route), variable

    def _base(self) -> str | None:
        base = self.params.get("api_base") or self.params.get("base_url")
        if isinstance(base, list) and len(base) == 1:
            return f"${{{_variable(base[0])}}}"
        return _VARIABLE.sub(r"${\1}", str(base)).rstrip("/") if base is not None else None

    def _key(self, own_variable: str, note: Any) -> dict[str, Any]:
        """The key's variable. It is always set, so that no other key can go to this host by default."""
        key = self.params.get("api_key")
        if key is None:
            return {"apiKeyEnv": own_variable}
        if isinstance(key, list) and len(key) == 1:
            return {"apiKeyEnv": _variable(key[0])}
        if found := _VARIABLE.fullmatch(str(key)):
            return {"apiKeyEnv": found[1]}
        variable = _variable(self.where.partition("(")[0].strip()).upper() + "_KEY"
        note(f"its api_key is in the file itself and is not copied: put it into {variable}")
        return {"apiKeyEnv": variable}

    def _limits(self, route: dict[str, Any], reading: Reading, note: Any) -> None:
        settings = reading.settings
        defaults = {"timeout": settings.get("timeout", settings.get("request_timeout"))}
        defaults["stream_timeout"] = settings.get("stream_timeout")
        for name, ours in _DIRECT.items():
            value = self.params.get(name, defaults.get(name))
            if (found := number(value)) is not None:
                route[ours] = found
            elif value is not None and name in self.params:
                note(f"{name}: {value!r} is not a number; it is left out")
        retries = number(self.params.get("max_retries", self.params.get("num_retries", settings.get("num_retries"))))
        if retries is not None:
            route["retries"] = min(int(retries), MOST_RETRIES)
            if retries > MOST_RETRIES:
                note(f"{retries} retries are reduced to {MOST_RETRIES}, the most that a route allows")
        if kept := [ours for ours in ("rpm", "tpm", "maxConcurrency") if ours in route]:
            note(f"{', '.join(kept)} kept in the map; not enforced yet")

    def _model_info(self, route: dict[str, Any], note: Any) -> None:
        """Take the context window, the price and the capabilities from model_info."""
        info = {**self.info, **self.params}
        for name, ours in (("max_input_tokens", "contextWindow"), ("max_output_tokens", "maxOutputTokens")):
            if (tokens := number(info.get(name))) is not None:
                route[ours] = int(tokens)
        prices = [number(info.get(name)) for name in _COSTS]
        if prices[0] is not None and prices[1] is not None:
            route["price"] = {"input": round(prices[0] * 1e6, 9), "output": round(prices[1] * 1e6, 9)}
        elif any(name in info for name in _COSTS):
            note("a price needs both the input and the output cost; it is left out")
        if all(name in info for name in _ABLE):
            route["capabilities"] = [able for name, names in _ABLE.items() if info[name] for able in names]
        elif some := [name for name in _ABLE if name in info]:
            note(f"{', '.join(some)}: set all capabilities or none; they are left out")


def _variable(text: Any) -> str:
    return re.sub(r"\W+", "_", str(text)).strip("_")
