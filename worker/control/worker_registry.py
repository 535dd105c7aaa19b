"""What each running worker writes about itself into Redis: RQ's worker record, its slots, routes and queues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from producer import keyspace
from producer.scripts import Command, although_full, ask
from worker.breakers import health
from worker.control.pause import Paused, paused
from worker.routes.names import canonical
from worker.routes.route import Routes

WORKER_TTL_SECONDS = 30
OUR_NAMES = "failover-worker-"  # every name of ours begins so


def registration(key: str, fields: Mapping[str, Any], queues: Sequence[str]) -> list[Command]:
    """The complete RQ record of this worker, written with every heartbeat, so that it returns after Redis has lost it.

    The record lives WORKER_TTL_SECONDS, so a killed worker soon disappears from `failover status` and `rq info`.
    """
    flat = [word for pair in fields.items() for word in pair]
    sets = [keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in queues)]
    commands = [("HSET", key, *flat), ("EXPIRE", key, WORKER_TTL_SECONDS), *(("SADD", name, key) for name in sets)]
    return [although_full(*commands)]


def deregistration(key: str, queues: Sequence[str]) -> list[Command]:
    """The commands of RQ's `register_death`, for one round trip of the asyncio client."""
    sets = [keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in queues)]
    return [*(("SREM", name, key) for name in sets), ("DEL", key)]


def view(
    worker_name: str,
    routes: Routes,
    slots: int,
    refused: str = "",
    refused_keys: Sequence[str] = (),
    failing: Sequence[str] = (),
) -> Command:
    """The worker's state for operators: its slots, its routes, and warnings: unusual switches, why its changed files were
    refused (`refused`), API keys that providers refuse (`refused_keys`); and which of its steps Redis refuses (`failing`)."""
    left_out = [{"route": out.name, "tier": out.tier, "left_out": out.why} for out in routes.left_out]
    warnings = _warnings(routes, refused, refused_keys)
    state = json.dumps({"slots": slots, "routes": facts(routes) + left_out, "told": warnings, "failing": list(failing)})
    return although_full(("SET", keyspace.routes_of(worker_name), state, "EX", WORKER_TTL_SECONDS))


def facts(routes: Routes) -> list[dict[str, Any]]:
    """The routes that can be called, as `views` has them."""
    return [
        {
            "route": route.name,
            "tier": route.tier,
            "provider": route.entry.provider,
            "model": route.model,
            "price": route.price and route.price.model_dump(),
            "key": route.account.removeprefix(f"{route.entry.provider} "),  # where its key comes from
        }
        for route in routes.routes
    ]


def _warnings(routes: Routes, refused: str, refused_keys: Sequence[str]) -> list[str]:
    """The warnings of a worker, as text for people."""
    warnings = (
        ["BYPASS_ROUTER is on: every job goes to the first route, caps and failover are off"] if routes.bypass else []
    )
    if not routes.cold_queue:
        warnings.append("ENABLE_COLD_QUEUE is off: no job waits for a route")
    warnings += [f"an API key was refused or limited by its provider and is skipped: {key}" for key in refused_keys]
    return warnings + ([f"the configuration was refused, an older one is used: {refused}"] if refused else [])


def names(client: redis.Redis, queue: str | None = None) -> list[str]:
    """The names of our workers (of a queue) that have not deregistered. A killed one stays in the list, without a record.
    RQ's own workers, which other apps may run in this Redis, are not ours."""
    return [name for name in _registered(client, queue) if name.startswith(OUR_NAMES)]


def _registered(client: redis.Redis, queue: str | None) -> list[str]:
    (keys,) = ask(client, [("SMEMBERS", keyspace.WORKERS if queue is None else keyspace.workers_of(queue))])
    return sorted(key.decode(errors="replace").removeprefix(keyspace.WORKER) for key in keys)


def alive(client: redis.Redis, queue: str | None = None) -> int:
    """How many of our workers (of a queue) have a record that has not expired."""
    return sum(ask(client, [("EXISTS", keyspace.worker(name)) for name in names(client, queue)]))


def strangers(client: redis.Redis, queue: str) -> list[str]:
    """A warning for each living worker of RQ on a queue with jobs of ours: it takes them and fails them."""
    others = [name for name in _registered(client, queue) if not name.startswith(OUR_NAMES)]
    is_ours, *living = ask(
        client, [("EXISTS", keyspace.accepted(queue)), *(("EXISTS", keyspace.worker(name)) for name in others)]
    )
    return [
        f"{name} is an `rq worker` on {queue}: it takes our jobs and fails them — stop it, or give it another queue"
        for name, exists in zip(others, living, strict=True)
        if is_ours and exists
    ]


def views(client: redis.Redis) -> list[dict[str, Any]]:
    """The state that each worker wrote with `view`: {slots, routes: [{route, tier, provider, model, price}, {route, tier,
    left_out}], told: [warnings], failing: [steps], worker: its name}."""
    workers = names(client)
    replies = ask(client, [("GET", keyspace.routes_of(name)) for name in workers])
    return [
        {**json.loads(reply), "worker": name}
        for name, reply in zip(workers, replies, strict=True)
        if isinstance(reply, bytes)
    ]


def usable(views: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The routes of all workers that can be called, by name."""
    return {route["route"]: route for view in views for route in view["routes"] if "left_out" not in route}


def withheld(usable: Mapping[str, Mapping[str, Any]], flags: Sequence[Paused]) -> set[str]:
    """The routes among `usable` that people or the budget paused."""
    return {name for name, each in usable.items() if any(flag.closes(name, each["provider"]) for flag in flags)}


def no_route_open(client: redis.Redis) -> str:
    """The state of every route, as text for people, when no worker may call any; "" when one is open, or none is known."""
    routes, flags = usable(views(client)), paused(client, [])
    closed = withheld(routes, flags)
    states = health.of_routes(client, list(routes))
    if any(each.serves and name not in closed for name, each in states.items()):
        return ""
    causes = {name: each.rests_for or each.breaker for name, each in states.items()} | dict.fromkeys(closed, "withheld")
    return ", ".join(f"{name} {cause}" for name, cause in causes.items())


def providers(client: redis.Redis) -> list[str]:
    """The providers of all workers' routes, by their canonical names."""
    routes = [route for view in views(client) for route in view["routes"]]
    return sorted({canonical(route["provider"]) for route in routes if "provider" in route})


def queues(client: redis.Redis, default: str) -> list[str]:
    """Every queue that ever held a job, and `default`."""
    (keys,) = ask(client, [("SMEMBERS", keyspace.QUEUES)])
    return sorted({key.decode(errors="replace").removeprefix(keyspace.QUEUE) for key in keys} | {default})
