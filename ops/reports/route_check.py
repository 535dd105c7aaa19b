"""`failover routes check`: whether each route can be used; with `live`, whether its tools and its JSON work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ops.reports import recorder
from ops.reports.route_address import address_problem
from worker.configuration import Configuration
from worker.errors.catalog import Action
from worker.errors.classify import Broken, Reply, classify, redacted
from worker.network import Network
from worker.providers import ProviderRequest, Providers
from worker.providers.connectivity import Reached, reach
from worker.routes.parameters import essential, fitted
from worker.routes.route import Route
from worker.routing.attempt import RouteAttempt
from worker.routing.call_time import cut_routes

SECONDS = 30.0

_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_ASKED = {"role": "user", "content": "Which city is the capital of Portugal? Answer in the requested form."}
_TOOL = {"type": "function", "function": {"name": "name_city", "description": "Names a city", "parameters": _CITY}}

_LEVELS: dict[Reached, Literal["ok", "warn", "fail"]] = {Reached.OK: "ok", Reached.NO_MODELS: "warn"}

BODIES: dict[str, dict[str, Any]] = {
    "tools": {
        "messages": [_ASKED],
        "tools": [_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "name_city"}},
        "max_tokens": 200,
    },
    "json_schema": {
        "messages": [_ASKED],
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": _CITY}},
        "max_tokens": 200,
    },
}


@dataclass(frozen=True)
class Checked:
    """One result for a route. `about`: what was checked; `told`: the result in words."""

    route: str
    level: Literal["ok", "warn", "fail"]
    about: str
    told: str

    def __str__(self) -> str:
        return f"{self.level:5} {self.route} {self.about}: {self.told}"


def check(
    configuration: Configuration, *, live: bool, only: Sequence[str], record: Path | None = None
) -> list[Checked]:
    """Check every route, or those named in `only`; with `live`, billed calls. `record`: a folder for their answers."""
    routes, network = configuration.routes, configuration.network
    deadlines = {name: policy.deadline_seconds for name, policy in configuration.policies.job_types.items()}
    chosen = [route for route in routes.routes if not only or route.name in only]
    found = [
        Checked(out.name, "fail" if out.name in only else "warn", "left out", out.why)
        for out in routes.left_out
        if not only or out.name in only
    ]
    found += [
        Checked(name, "warn", "time", why)
        for name, why in cut_routes(routes.routes, deadlines)
        if not only or name in only
    ]
    found += [
        Checked(route.name, "warn", "address", f"{route.base_url} {why}") for route, why in _wrong_addresses(chosen)
    ]
    for route, each in zip(chosen, reach(chosen, network), strict=True):
        level = _LEVELS.get(each.how, "fail")
        hint = " — a gateway may have no such list; else its baseUrl is wrong" if each.how is Reached.NO_MODELS else ""
        found.append(Checked(route.name, level, "models", f"{each.how} ({each.detail}) {each.address}{hint}"))
    if live:
        wanted = [route for route in chosen if only or route.tier == "warm"]
        found += asyncio.run(_live(wanted, record, network))
    return found


def _wrong_addresses(routes: Sequence[Route]) -> Iterator[tuple[Route, str]]:
    for route in routes:
        if (why := address_problem(route)) is not None:
            yield route, why


async def _live(routes: Sequence[Route], record: Path | None, network: Network) -> list[Checked]:
    providers = Providers(2 * len(routes) or 1, network)
    answers: dict[str, list[dict[str, Any]]] = {route.name: [] for route in routes}
    try:
        tried = [_try(providers, route, about, answers[route.name]) for route in routes for about in BODIES]
        found = list(await asyncio.gather(*tried))
        for route in routes if record is not None else ():
            path = recorder.write(record or Path(), route, answers[route.name])
            found.append(Checked(route.name, "ok", "recorded", str(path)))
        return found
    finally:
        await providers.close()


async def _try(providers: Providers, route: Route, about: str, answers: list[dict[str, Any]]) -> Checked:
    """`answers` gets a row for each answer."""
    lacks = route.entry.capabilities is not None and about not in route.entry.capabilities
    if lacks:
        return Checked(route.name, "ok", about, "its capabilities exclude it, so no such job uses this route")
    if foreign := essential(BODIES[about], route.parameters):
        return Checked(route.name, "ok", about, f"does not know {', '.join(foreign)}, so no such job uses this route")
    body, dropped = fitted(BODIES[about], route.parameters)
    key, began = route.keys[0].secret if route.keys else "", time.monotonic()
    attempt, changes = RouteAttempt(route, body), list(dropped)
    while True:
        ask = ProviderRequest(
            route, key, attempt.body, f"check-{time.time_ns()}", SECONDS, secrets=[each.secret for each in route.keys]
        )
        answer = await providers.complete(ask)
        failure = classify(answer, time.time())
        if row := recorder.row_of(about, answer, failure, [each.secret for each in route.keys]):
            answers.append(row)
        if failure is None or failure.action is not Action.DROP:
            break
        if (correction := attempt.correction(failure.parameter, failure.instead)) is None:
            break
        attempt.correct(correction)  # as the router would
        changes.append(correction.done)
    ms = round((time.monotonic() - began) * 1000)
    differs = f"; changed before sending: {', '.join([*changes, *ask.dropped])}" if changes or ask.dropped else ""
    if problem := _problem(about, answer):
        hint = f" — is its baseUrl right? {route.base_url}" if failure is not None and failure.status == 404 else ""
        return Checked(route.name, "fail", about, redacted(problem, key)[:300] + hint)
    return Checked(route.name, "ok", about, f"as requested, in {ms} ms{differs}")


def _problem(about: str, answer: Reply | Broken) -> str | None:
    """The problem of the answer; None if it is as requested."""
    failure = classify(answer, time.time())
    if failure is not None or isinstance(answer, Broken):
        return f"{failure.code}: {failure.detail}" if failure else "no answer"
    message = answer.body["choices"][0]["message"]
    try:
        if about == "tools":
            function = message["tool_calls"][0]["function"]
            text = function["arguments"]
            if function["name"] != "name_city":
                return f"called {function['name']}, a tool that was not offered"
        else:
            text = message["content"]
    except (KeyError, TypeError, IndexError):
        return "answered without the required tool call — remove `tools` from its `capabilities`"
    try:
        city = json.loads(text)["city"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"did not answer with JSON of the schema — remove `{about}` from its `capabilities`"
    return None if isinstance(city, str) else "answered with JSON that the schema does not allow"
