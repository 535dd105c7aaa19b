"""The workers that run, as they tell of themselves in Redis: RQ's record of each, its slots, its routes and its queues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from producer import keyspace
from producer.scripts import Command, ask
from worker.breakers import health
from worker.control.pause import paused
from worker.routes.names import canonical
from worker.routes.route import Routes

WORKER_TTL_SECONDS = 30


def registration(key: str, fields: Mapping[str, Any], queues: Sequence[str]) -> list[Command]:
    """RQ's record of this worker, whole, so that it comes back by itself after Redis has lost it.

    It lives for half a minute: a worker that was killed is soon gone from `failover status` and `rq info`.
    """
    flat = [word for pair in fields.items() for word in pair]
    sets = [keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in queues)]
    return [("HSET", key, *flat), ("EXPIRE", key, WORKER_TTL_SECONDS), *(("SADD", name, key) for name in sets)]


def deregistration(key: str, queues: Sequence[str]) -> list[Command]:
    """What RQ's register_death does, in one round trip of the loop's own client."""
    sets = [keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in queues)]
    return [*(("SREM", name, key) for name in sets), ("DEL", key)]


def view(worker_name: str, routes: Routes, slots: int, refused: str = "", refused_keys: Sequence[str] = ()) -> Command:
    """What an operator's terminal has to know of this worker: its slots, the routes of its map, the switches that are not as
    usual, why its files cannot be used as they stand (`refused`), the keys that providers refuse."""
    view: list[dict[str, Any]] = [
        {
            "route": route.name,
            "tier": route.tier,
            "provider": route.entry.provider,
            "model": route.model,
            "price": route.price and route.price.model_dump(),
        }
        for route in routes.routes
    ]
    left_out = [{"route": out.name, "tier": out.tier, "left_out": out.why} for out in routes.left_out]
    return (
        "SET",
        keyspace.routes_of(worker_name),
        json.dumps({"slots": slots, "routes": view + left_out, "told": _told(routes, refused, refused_keys)}),
        "EX",
        WORKER_TTL_SECONDS,
    )


def _told(routes: Routes, refused: str, refused_keys: Sequence[str]) -> list[str]:
    """What everybody who looks should see first."""
    told = (
        ["BYPASS_ROUTER is on: every job goes to the first route, no cap and no failover holds"]
        if routes.bypass
        else []
    )
    if not routes.cold_queue:
        told.append("ENABLE_COLD_QUEUE is off: no job waits for a route")
    told += [f"a key is refused or limited by its provider, and passed over: {key}" for key in refused_keys]
    return told + ([f"the configuration was refused, an older one is used: {refused}"] if refused else [])


def names(client: redis.Redis) -> list[str]:
    """Of every worker that has not said goodbye; one that was killed stays among them, without a record."""
    (keys,) = ask(client, [("SMEMBERS", keyspace.WORKERS)])
    return sorted(key.decode(errors="replace").removeprefix(keyspace.WORKER) for key in keys)


def alive(client: redis.Redis, queue: str | None = None) -> int:
    """How many workers (of a queue) have a record that has not run out."""
    (keys,) = ask(client, [("SMEMBERS", keyspace.WORKERS if queue is None else keyspace.workers_of(queue))])
    return sum(ask(client, [("EXISTS", key) for key in keys]))


def views(client: redis.Redis) -> list[dict[str, Any]]:
    """What each worker tells of itself: {slots, routes: [{route, tier, provider, model, price}, {..., left_out}]}."""
    replies = ask(client, [("GET", keyspace.routes_of(name)) for name in names(client)])
    return [json.loads(reply) for reply in replies if isinstance(reply, bytes)]


def usable(views: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The routes of all maps that can be called, by name."""
    return {route["route"]: route for view in views for route in view["routes"] if "left_out" not in route}


def no_route_open(client: redis.Redis) -> str:
    """How the routes of all workers stand when none of them may be called; "" when one may, or none is known."""
    routes, flags = usable(views(client)), paused(client, [])
    closed = {name for name, each in routes.items() if any(flag.closes(name, each["provider"]) for flag in flags)}
    standing = health.of_routes(client, list(routes))
    if any(each.serves and name not in closed for name, each in standing.items()):
        return ""
    told = {name: each.rests_for or each.breaker for name, each in standing.items()} | dict.fromkeys(closed, "withheld")
    return ", ".join(f"{name} {how}" for name, how in told.items())


def providers(client: redis.Redis) -> list[str]:
    """The providers of every worker's routes, each by its one name."""
    routes = [route for view in views(client) for route in view["routes"]]
    return sorted({canonical(route["provider"]) for route in routes if "provider" in route})


def queues(client: redis.Redis, default: str) -> list[str]:
    """Every queue that a job was ever in, and `default`."""
    (keys,) = ask(client, [("SMEMBERS", keyspace.QUEUES)])
    return sorted({key.decode(errors="replace").removeprefix(keyspace.QUEUE) for key in keys} | {default})
