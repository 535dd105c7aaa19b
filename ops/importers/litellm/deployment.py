"""Converts one entry of a LiteLLM config's model_list to a route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ops.importers.litellm.limits import Limits
from ops.importers.litellm.prefixes import of_name
from ops.importers.litellm.report import Report
from ops.importers.litellm.settings import mapping
from ops.importers.litellm.target import Asked, NoTargetError, target_of
from ops.importers.litellm.values import PLACEHOLDER, filled, lone_variable, number
from producer.environment import Environment

_NO_KEY = re.compile(
    r"none|null|nil|na|n/a|no|empty|dummy|fake|anything|any|x+|-|not[-_ ]?(?:needed|required|used|necessary)|unused|ollama"
    r"|lm[-_]?studio|vllm|(?:sk-)?(?:no[-_]?(?:api[-_]?)?key(?:[-_]?(?:needed|required))?|dummy|fake|none)(?:[-_]?(?:api[-_]?)?key)?",
    re.IGNORECASE,
)
_CHAT_MODES = (None, "chat", "responses")
_NO_CHAT = re.compile(  # of the chat models in LiteLLM's price list it finds only those that make images, voices, embeddings
    r"(?:^|[/_.:-])(whisper|dall-?e|text-embedding|embed|embeddings?|multimodalembedding|gpt-image|chatgpt-image|image|imagen"
    r"|stable-diffusion|sdxl|flux|veo|sora|video|t2v|i2v|tts|stt|speech|orpheus|transcribe|transcription|asr|realtime|live"
    r"|native-audio|moderation|rerank|reranker|rerankqa|ranker|bge|e5|gte|minilm|parse|text-davinci|davinci|babbage"
    r"|turbo-instruct)(?=[/_.:@-]|\d|$)",
    re.IGNORECASE,
)
_NO_CHAT_ALIAS = re.compile(r"\b(whisper|dall-?e|embeddings?|gpt-image|tts|rerank(?:er)?|moderation)\b", re.IGNORECASE)
_COSTS = ("input_cost_per_token", "output_cost_per_token")
_ABLE = {
    "supports_function_calling": ["tools"],
    "supports_response_schema": ["json_mode", "json_schema"],
    "supports_vision": ["vision"],
}
_OF_JOBS = {"temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed", "reasoning_effort"}
_OF_JOBS |= {
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "thinking",
    "tools",
    "tool_choice",
    "n",
    "verbosity",
}
_OF_JOBS |= {"extra_body", "num_ctx", "service_tier", "user", "parallel_tool_calls", "web_search_options", "logit_bias"}
_WHY = {
    **dict.fromkeys(_OF_JOBS, "is no part of a route: put it into the body of the jobs"),
    **dict.fromkeys(("extra_headers", "headers", "default_headers"), "is not sent: a route has no headers of its own"),
    **dict.fromkeys(
        ("drop_params", "additional_drop_params"), "is not needed: what a provider does not know is dropped anyway"
    ),
    **{f"{name}_limit": f"is no setting of LiteLLM's deployments: write {name}" for name in ("rpm", "tpm")},
    "ssl_verify": "has no counterpart: certificates are always checked; SSL_CERT_FILE names a CA of your own",
    "organization": "is not sent: use a key of that organization",
    "max_budget": "has no counterpart: set a cap in policies/budgets.yaml",
    "tags": "has no counterpart: pin job types to routes in policies/routing.yaml",
    "cache_control_injection_points": "is not needed: policies/routing.yaml has prompt_caching",
}
_TOKENS = ("azure_ad_token",)
_ENTRA = {
    "tenant_id",
    "client_id",
    "client_secret",
    "azure_ad_token",
    "azure_username",
    "azure_password",
    "azure_scope",
}
_READ = {"model", "custom_llm_provider", "litellm_credential_name", "api_key", "api_base", "base_url", "model_info"}
_READ |= {
    "fallbacks",
    "order",
    "use_in_pass_through",
    "base_model",
    "mode",
    "max_input_tokens",
    "max_output_tokens",
    *_COSTS,
    *_ABLE,
}
_INFO = {"id", "mode", "description", "max_input_tokens", "max_output_tokens", "order", *_COSTS, *_ABLE}


@dataclass(frozen=True)
class File:
    """What all deployments of a config share. `credentials`: the values of credential_list, by name; `variables`: the
    section environment_variables."""

    settings: Mapping[str, Any]
    credentials: Mapping[str, dict[str, Any]]
    variables: Environment
    environment: Environment


@dataclass(frozen=True)
class Deployment:
    """The entry at `position` (from 1), and the settings of the whole file. `fallback`: the number of one of its own
    fallbacks, which LiteLLM takes within litellm_params; 0: the entry itself."""

    position: int
    entry: dict[str, Any]
    file: File
    report: Report
    fallback: int = 0

    @property
    def alias(self) -> str:
        return str(self.entry.get("model_name"))

    @property
    def where(self) -> str:
        """Its name in the report."""
        return f"entry {self.position} ({self.alias})" + (f", fallback {self.fallback}" if self.fallback else "")

    @property
    def fallbacks(self) -> list[Deployment]:
        """Those of litellm_params: each is called like an entry of its own, after those of the alias."""
        listed, found = self.entry["litellm_params"].get("fallbacks"), list[Deployment]()
        for each in listed if isinstance(listed, list) else ():
            params = each if isinstance(each, dict) else {"model": each}
            entry = {"model_name": self.alias, "litellm_params": params}
            found.append(replace(self, entry=entry, fallback=len(found) + 1))
        return found

    @property
    def params(self) -> dict[str, Any]:
        """litellm_params; below them the values of its credential, and then default_litellm_params."""
        given = {name: value for name, value in self.entry["litellm_params"].items() if value is not None}
        credential = self.file.credentials.get(str(given.get("litellm_credential_name")), {})
        return {**mapping(self.file.settings.get("default_litellm_params")), **credential, **given}

    @property
    def info(self) -> dict[str, Any]:
        """model_info, which LiteLLM also takes within litellm_params."""
        both = [
            part for part in (self.params.get("model_info"), self.entry.get("model_info")) if isinstance(part, dict)
        ]
        return {name: value for part in both for name, value in part.items() if value is not None}

    def given(self, name: str) -> Any:
        """A value of litellm_params; else the one beside them, or in model_info; None without any."""
        return next((part[name] for part in (self.params, self.entry, self.info) if part.get(name) is not None), None)

    @property
    def order(self) -> float | None:
        return number(self.given("order"), self.file.environment)

    def route(self) -> dict[str, Any] | None:
        """The route; None if it has no counterpart, with the reason in the report."""
        if why := self._no_chat():
            self.report.leave_out(self.where, why)
            return None
        name = self.params.get("litellm_credential_name")
        if name is not None and str(name) not in self.file.credentials:
            self._note(f"credential_list has no {name}, so its own key and address are used")
        try:
            target = target_of(self._asked(), self._note)
        except NoTargetError as why:
            self.report.leave_out(self.where, str(why))
            return None
        route = {"provider": target.provider, "model": target.model, "baseUrl": target.base_url}
        route |= {"api": target.api} if target.api != "openai" else {}
        route |= {"apiKeyEnv": self._key(target.variables)}
        route |= Limits(self.where, self.file.settings, self.file.environment, self.report).of(self.given)
        route |= self._model_info()
        self._leftovers(target.provider)
        return route

    def _note(self, text: str) -> None:
        self.report.approximate(self.where, text)

    def _no_chat(self) -> str:
        """Why it is no chat model; "" for one."""
        model, mode = filled(self.params.get("model") or ""), self.given("mode")
        if not model:
            return "has no model: add litellm_params.model"
        if mode not in _CHAT_MODES:
            return f"{model} has the mode {mode}, the worker sends chats: call it directly"
        if mode == "responses":
            self._note("has the mode responses, and is called at /chat/completions: check that it answers there")
        if mode is not None:
            return ""
        found = _NO_CHAT.search(model) or _NO_CHAT.search(str(self.given("base_model") or ""))
        if found is None and of_name(model.rpartition("/")[2]) is None:
            found = _NO_CHAT_ALIAS.search(self.alias)
        if found:
            return f"{model} is no chat model ({found[1]}): call it directly; if it is one, set model_info.mode to chat"
        return ""

    def _asked(self) -> Asked:
        params = self.params
        base = params.get("api_base") or params.get("base_url")
        model = filled(params["model"])
        if lone_variable(model):
            self._note(
                f"set {lone_variable(model)} to the model's id, as the provider knows it, without LiteLLM's prefix"
            )
        key = params.get("api_key", params.get("azure_ad_token"))
        custom = str(params.get("custom_llm_provider") or "").strip()
        return Asked(
            model=model,
            custom=custom,
            base=filled(base) if base else None,
            key=None if key is None else filled(key),
            settings=self.file.variables,
            environment=self.file.environment,
        )

    def _key(self, variables: tuple[str, ...]) -> str:
        """The key's variable; "" for no key. It is always set, so that no other key can go to this host by default."""
        key = self.params.get("api_key", self.params.get("azure_ad_token"))
        usual = next((name for name in variables if self.file.environment.get(name)), variables[0] if variables else "")
        if key is None:
            return usual
        text = filled(key)
        if not text or _NO_KEY.fullmatch(text):
            return ""
        if name := lone_variable(text):
            return name
        if PLACEHOLDER.search(text):
            self._note(f"its api_key is a placeholder: {usual or 'no key'} is used")
            return usual
        variable = f"MODEL_LIST_ENTRY_{self.position}{f'_{self.fallback}' if self.fallback else ''}_KEY"
        self._note(f"its api_key is in the file itself and is not copied: put it into {variable}")
        return variable

    def _model_info(self) -> dict[str, Any]:
        """The context window, the price and the capabilities."""
        route: dict[str, Any] = {}
        for name, ours in (("max_input_tokens", "contextWindow"), ("max_output_tokens", "maxOutputTokens")):
            if (tokens := number(self.given(name), self.file.environment)) is not None and tokens >= 1:
                route[ours] = int(tokens)
        prices = [number(self.given(name), self.file.environment) for name in _COSTS]
        if prices[0] is not None and prices[1] is not None:
            route["price"] = {"input": round(prices[0] * 1e6, 9), "output": round(prices[1] * 1e6, 9)}
        elif any(self.given(name) is not None for name in _COSTS):
            self.report.leave_out(self.where, "a price needs both the input and the output cost: add the other one")
        told = {name: self.given(name) for name in _ABLE if self.given(name) is not None}
        if len(told) == len(_ABLE):
            route["capabilities"] = [able for name, names in _ABLE.items() if told[name] for able in names]
        elif told:
            names = ", ".join(told)
            self.report.leave_out(
                self.where, f"{names}: set capabilities on the route, all or none (none: it takes all jobs)"
            )
        return route

    def _leftovers(self, provider: str) -> None:
        """Say what was not read."""
        params = {str(name) for name in self.params} - _READ - Limits.READ
        if "api_version" in params and provider in ("azure", "azure_ai"):
            params.discard("api_version")
            self._note("api_version is not sent: Azure's /openai/v1 needs none")
        if entra := sorted(params & _ENTRA):
            params -= _ENTRA
            own = "azure_ad_token" in entra and "api_key" not in self.params
            fix = "such a token lasts an hour: use an API key" if own else "use an API key"
            self.report.leave_out(self.where, f"{', '.join(entra)}: {fix}")
        for name in sorted(params):
            self.report.leave_out(self.where, f"{name} {_WHY.get(name, 'has no counterpart: nothing is sent for it')}")
        beside = (
            {str(name) for name in self.entry} - {"model_name", "litellm_params", "model_info"} - _READ - Limits.READ
        )
        inside = {f"model_info.{name}" for name in self.info} - {f"model_info.{name}" for name in _INFO | Limits.READ}
        for name in sorted(beside | inside):
            self.report.leave_out(self.where, f"{name} has no counterpart: jobs go without it")
