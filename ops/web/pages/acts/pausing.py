"""Pause and resume; the kill switch of a route."""

from __future__ import annotations

from ops.reports.status import gather
from ops.web.pages.acts.act import LENGTHS, Act, Done, Field, Preview, in_words, seconds_of
from ops.web.pages.next_steps import Step, scope_query
from ops.web.pages.page import Pages, link
from ops.web.sessions import Form, Visitor
from producer.errors import BadRequest
from worker.breakers import health
from worker.control import pause as flags
from worker.control import worker_registry
from worker.control.pause import Scope
from worker.humanize import many
from worker.money import billing_alerts
from worker.queue import fair_queue
from worker.reports import backlog
from worker.routes.names import canonical

_KINDS = ("queue", "provider", "tenant")
_WHY = Field("reason", "Why? It is shown to everybody who looks.")
_HOW_LONG = Field("for", "For how long?", "select", options=LENGTHS)


def _scope(form: Form) -> Scope:
    given = {kind: form.one(kind) for kind in _KINDS if form.one(kind)}
    if len(given) > 1:
        raise BadRequest("pause one of a queue, a provider and a client: they are separate flags")
    return Scope(**given)


def _hidden(scope: Scope) -> tuple[tuple[str, str], ...]:
    return tuple((kind, name) for kind, name in scope_query(scope).items() if name is not None)


def _preview_pause(pages: Pages, query: Form) -> Preview:
    scope = _scope(query)
    already = [str(flag) for flag in flags.paused(pages.client, pages.queues()) if flag.scope == scope]
    waiting, running = _counts(pages, scope)
    ends = "its running jobs" if scope.tenant else many(running, "running job")  # nobody counts those of a client
    of = "" if scope == flags.EVERYTHING else f" of {scope}"
    lines = [f"No new job{of} starts; {ends} will end as usual.",
             f"{many(waiting, 'job')} will wait. Nothing is lost or charged, and no job expires meanwhile."]  # fmt: skip
    if scope.provider:
        lines = [
            f"Nobody calls {scope.provider} any more; other providers serve its jobs. {many(running, 'running job')} will end."
        ]
    lines += [f"It is paused already: {flag}" for flag in already]
    return Preview(f"Pause {scope}?", tuple(lines), f"Pause {scope}", _hidden(scope), (_WHY, _HOW_LONG))


def _counts(pages: Pages, scope: Scope) -> tuple[int, int]:
    """(waiting jobs, running jobs) of a scope; of a provider all running ones."""
    status = gather(pages.client, pages.producer.queue)
    queues = [each for each in status.queues if scope.queue in (None, each.queue)]
    if scope.tenant:
        return sum(fair_queue.waiting_of(pages.client, each.queue, scope.tenant) for each in queues), 0
    return sum(each.queued + each.waiting for each in queues), sum(each.in_flight for each in queues)


def _pause(pages: Pages, form: Form, visitor: Visitor) -> Done:
    scope = _scope(form)
    seconds = seconds_of(form)
    flag = flags.pause(pages.client, scope, who=visitor.who, why=form.one("reason"), seconds=seconds)
    undo = Step("Resume", link("/ui/act/resume", **scope_query(scope)), act=True)
    return Done(f"Paused: {scope}", (str(flag),), undo)


def _preview_resume(pages: Pages, query: Form) -> Preview:
    scope = _scope(query)
    found = backlog.estimate(pages.client, scope, pages.producer.queue)
    budgets = [each for each in billing_alerts.known(pages.client) if scope.provider in (None, each.provider)]
    by_budget = any(flag.who == flags.BUDGET for flag in flags.paused(pages.client, pages.queues()))
    fields: tuple[Field, ...] = ()
    if by_budget and budgets and scope.queue is None and scope.tenant is None:
        share = str(billing_alerts.share_above(*(each.percent for each in budgets)))
        hint = "Without it the next report of billing pauses again."
        fields = (Field("again_at", "Pause again at this percentage of the budget", "number", share, hint),)
    why = [f"Paused: {flag}" for flag in flags.paused(pages.client, pages.queues()) if flag.scope == scope]
    return Preview(f"Resume {scope}?", (*why, *in_words(found)), f"Resume {scope}", _hidden(scope), fields)


def _resume(pages: Pages, form: Form, visitor: Visitor) -> Done:
    scope = _scope(form)
    again_at = _percent(pages, scope, form.one("again_at"))
    cleared = flags.resume(pages.client, scope, who=visitor.who, again_at=again_at)
    left = flags.paused(pages.client, pages.queues())
    title = f"Resumed: {', '.join(map(str, cleared))}" if cleared else f"{scope} was not paused"
    lines = ["Jobs start slowly, then at full speed."] if cleared else []
    lines += [f"Still paused: {flag}" for flag in left if flag.route is None]
    undo = Step("Pause again", link("/ui/act/pause", **scope_query(scope)), act=True)
    return Done(title, tuple(lines), undo if cleared else None)


def _percent(pages: Pages, scope: Scope, given: str) -> float | None:
    if not given:
        return None
    try:
        again_at = float(given)
    except ValueError:
        raise BadRequest("the percentage is a number, such as 95") from None
    used = [each.percent for each in billing_alerts.known(pages.client) if scope.provider in (None, each.provider)]
    if used and not max(used) < again_at < 1e6:
        raise BadRequest(
            f"{max(used):g}% is used already: give a larger percentage, such as {billing_alerts.share_above(*used)}"
        )
    return again_at


def _route(pages: Pages, form: Form) -> tuple[str, str]:
    """(the name of a route that a worker knows or that is disabled, its provider). Raises BadRequest."""
    route = form.one("route")
    known = {
        each["route"]: each.get("provider", "")
        for view in worker_registry.views(pages.client)
        for each in view["routes"]
    }
    known |= {
        flag.route: "" for flag in flags.paused(pages.client, []) if flag.route is not None and flag.route not in known
    }
    if route not in known:
        raise BadRequest(f"no worker has a route {route}")
    return route, known[route]


def _preview_disable(pages: Pages, query: Form) -> Preview:
    route, _ = _route(pages, query)
    closed = {flag.route for flag in flags.paused(pages.client, []) if flag.route}
    left = [
        name for name in worker_registry.usable(worker_registry.views(pages.client)) if name not in closed | {route}
    ]
    lines = ["Within a second no worker calls it; calls that run now end as usual."]
    lines.append(
        f"{', '.join(left[:5])} will serve its jobs."
        if left
        else "No other route is left: jobs will wait, and may expire."
    )
    return Preview(
        f"Disable {route}?", tuple(lines), "Disable it", (("route", route),), (_WHY, _HOW_LONG), danger=not left
    )


def _disable(pages: Pages, form: Form, visitor: Visitor) -> Done:
    route, _ = _route(pages, form)
    flags.pause(pages.client, Scope(route=route), who=visitor.who, why=form.one("reason"), seconds=seconds_of(form))
    return Done(f"Disabled: {route}", undo=Step("Enable it again", link("/ui/act/enable-route", route=route), act=True))


def _preview_enable(pages: Pages, query: Form) -> Preview:
    route, provider = _route(pages, query)
    lines = ["Jobs use it again at once, whatever failed before: after you fixed a key, a bill or a quota."]
    if provider and any(flag.provider == canonical(provider) for flag in flags.paused(pages.client, [])):
        lines.append(f"Its provider {provider} stays paused.")
    return Preview(f"Use {route} again?", tuple(lines), "Use it again", (("route", route),))


def _enable(pages: Pages, form: Form, visitor: Visitor) -> Done:
    route, _ = _route(pages, form)
    changes = ["it was disabled"] if flags.resume(pages.client, Scope(route=route), who=visitor.who) else []
    changes += health.restore(pages.client, route, who=visitor.who)
    lines = (f"{route}: {', '.join(changes)}." if changes else "It was in use already.",)
    return Done(
        f"In use again: {route}", lines, Step("Disable it", link("/ui/act/disable-route", route=route), act=True)
    )


PAUSING = {
    "pause": Act(_preview_pause, _pause),
    "resume": Act(_preview_resume, _resume),
    "disable-route": Act(_preview_disable, _disable),
    "enable-route": Act(_preview_enable, _enable),
}
