"""Converts one entry of a LiteLLM config's model_list to a route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ops.importers.litellm.limits import Limits
from ops.importers.litellm.modes import why_no_chat
from ops.importers.litellm.report import Report
from ops.importers.litellm.settings import mapping
from ops.importers.litellm.target import Asked, NoTargetError, target_of
from ops.importers.litellm.unread import ABLE, COSTS, report_unread
from ops.importers.litellm.values import PLACEHOLDER, filled, lone_variable, number
from producer.environment import Environment

_NO_KEY = re.compile(
    r"none|null|nil|na|n/a|no|empty|dummy|fake|anything|any|x+|-|not[-_ ]?(?:needed|required|used|necessary)|unused|ollama"
    r"|lm[-_]?studio|vllm|(?:sk-)?(?:no[-_]?(?:api[-_]?)?key(?:[-_]?(?:needed|required))?|dummy|fake|none)(?:[-_]?(?:api[-_]?)?key)?",
    re.IGNORECASE,
)
MOST_DOLLARS_A_TOKEN = 1


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
    def key(self) -> str | None:
        """Its key as text, with variables as `${NAME}`; None if the config has none."""
        key = self.params.get("api_key", self.params.get("azure_ad_token"))
        return None if key is None else filled(key)

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
        report_unread(
            self.where,
            self.params,
            self.entry,
            self.info,
            azure=target.provider.startswith("azure"),
            report=self.report,
        )
        return route

    def _note(self, text: str) -> None:
        self.report.approximate(self.where, text)

    def _no_chat(self) -> str:
        """Why it is no chat model; "" for one."""
        model, mode = filled(self.params.get("model") or ""), self.given("mode")
        if not model:
            return "has no model: add litellm_params.model"
        if mode == "responses":
            self._note("has the mode responses, and is called at /chat/completions: check that it answers there")
        return why_no_chat(model, str(self.given("base_model") or ""), self.alias, mode)

    def _asked(self) -> Asked:
        params = self.params
        base = params.get("api_base") or params.get("base_url")
        model = filled(params["model"])
        if lone_variable(model):
            self._note(
                f"set {lone_variable(model)} to the model's id, as the provider knows it, without LiteLLM's prefix"
            )
        return Asked(
            model=model,
            custom=str(params.get("custom_llm_provider") or "").strip(),
            base=filled(base) if base else None,
            key=self.key,
            settings=self.file.variables,
            environment=self.file.environment,
        )

    def _key(self, variables: tuple[str, ...]) -> str:
        """The key's variable; "" for no key. It is always set, so that no other key can go to this host by default."""
        usual = next((name for name in variables if self.file.environment.get(name)), variables[0] if variables else "")
        text = self.key
        if text is None:
            return usual
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
        prices = [number(self.given(name), self.file.environment) for name in COSTS]
        if max(price or 0 for price in prices) > MOST_DOLLARS_A_TOKEN:
            self.report.leave_out(self.where, "a price of more than a dollar for a token: set `price` on the route")
        elif prices[0] is not None and prices[1] is not None:
            route["price"] = {"input": round(prices[0] * 1e6, 9), "output": round(prices[1] * 1e6, 9)}
        elif any(self.given(name) is not None for name in COSTS):
            self.report.leave_out(self.where, "a price needs both the input and the output cost: add the other one")
        told = {name: self.given(name) for name in ABLE if self.given(name) is not None}
        if len(told) == len(ABLE):
            route["capabilities"] = [able for name, names in ABLE.items() if told[name] for able in names]
        elif told:
            names = ", ".join(told)
            self.report.leave_out(
                self.where, f"{names}: set capabilities on the route, all or none (none: it takes all jobs)"
            )
        return route
