"""Cancel a job or what waits of a client; caps and cost saving; silence of an incident."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import ValidationError

from ops.reports.client_message import incident_named
from ops.web.pages.acts.act import LENGTHS, Act, Done, Field, Preview, seconds_of
from ops.web.pages.next_steps import Step
from ops.web.pages.page import Pages, link
from ops.web.sessions import Form, Visitor
from producer.errors import BadRequest, first_problem
from worker.humanize import many, money
from worker.money import budget_state, cost_saving
from worker.money.budget_state import month_of, once_full
from worker.money.caps import SCOPES, Cap, load_budgets, scope_named
from worker.notify.incidents import Incidents
from worker.queue import tenant_jobs
from worker.reports import backlog, statement
from worker.routes.prices import dollars

_SILENCES = LENGTHS[1:]
DEFAULT_SILENCE_SECONDS = 7200


def _preview_cancel(pages: Pages, query: Form) -> Preview:
    result = pages.producer.fetch(query.one("id"))
    if result.status.ended:
        return Preview(f"{result.job_id} is {result.status}", ("There is nothing to cancel.",), "")
    lines = (
        f"It is {result.status}. A call that runs is stopped within seconds, and its answer is not used. It cannot be undone.",
    )
    return Preview(f"Cancel {result.job_id}?", lines, "Cancel the job", (("id", result.job_id),), danger=True)


def _cancel(pages: Pages, form: Form, visitor: Visitor) -> Done:
    job_id = form.one("id")
    pages.producer.cancel(job_id, who=visitor.who)
    return Done(f"{job_id} is cancelled", back=f"/ui/jobs/{job_id}")


def _tenant(form: Form) -> str:
    tenant = form.one("tenant")
    if not tenant:
        raise BadRequest("name the client")
    return tenant


def _preview_cancel_tenant(pages: Pages, query: Form) -> Preview:
    tenant = _tenant(query)
    waiting = {queue: tenant_jobs.waiting(pages.client, queue, tenant) for queue in pages.queues()}
    count = sum(map(len, waiting.values()))
    costs = [backlog.cost(pages.client, queue, tenant) for queue, ids in waiting.items() if ids]
    known = [cost for cost in costs if cost is not None]
    saved = f" About {money(sum(known))} will not be spent." if known else ""
    lines = (f"Its running jobs end as usual, and new ones are still accepted.{saved} It cannot be undone.",)
    return Preview(
        f"Cancel {many(count, 'waiting job')} of {tenant}?", lines, "Cancel them", (("tenant", tenant),), danger=True
    )


def _cancel_tenant(pages: Pages, form: Form, visitor: Visitor) -> Done:
    tenant, cancelled = _tenant(form), 0
    for queue in pages.queues():
        ids = tenant_jobs.waiting(pages.client, queue, tenant)
        cancelled += tenant_jobs.cancel(pages.client, queue, tenant, ids, who=visitor.who, report=lambda _: None)
    pause = Step(f"Pause {tenant}, so that no new job of it starts", link("/ui/act/pause", tenant=tenant), act=True)
    return Done(f"{many(cancelled, 'job')} of {tenant} cancelled", undo=pause)


def _scope(form: Form) -> str:
    given = form.one("scope")
    scope = scope_named(
        given if ":" in given or given in ("", "total") else f"tenant:{given}"
    )  # a name alone is a client's
    if scope is None:
        raise BadRequest(f"say whose cap: {SCOPES}")
    return scope


def _spent(pages: Pages, scope: str) -> float:
    found = statement.sums(pages.client).get(scope, statement.Sums())
    return dollars(found.spent + found.ambiguous)


def _cap(pages: Pages, scope: str) -> Cap:
    return statement.cap_now(pages.client, load_budgets(pages.environment), scope)


def _preview_cap(pages: Pages, query: Form) -> Preview:
    scope = _scope(query)
    cap, spent = _cap(pages, scope), _spent(pages, scope)
    wanted = query.one("hard")
    lines = [f"{scope} has spent {money(spent)} this month. Its cap now: {cap}.",
             f"When a hard cap is used up, {once_full(scope)}. A change holds for every worker within a second."]  # fmt: skip
    hard = wanted or ("" if cap.hard_usd is None else f"{cap.hard_usd:g}")
    soft = "" if cap.soft_usd is None else f"{cap.soft_usd:g}"
    fields = (
        Field("hard", "Never spend more than this a month, in US dollars", "number", hard, "Empty: no hard cap."),
        Field("soft", "Warn by this amount", "number", soft, "Empty: the hard cap counts. Nothing stops at it."),
    )
    return Preview(f"The cap of {scope}", tuple(lines), "Set the cap", (("scope", scope),), fields)


def _set_cap(pages: Pages, form: Form, visitor: Visitor) -> Done:
    scope = _scope(form)
    before = _cap(pages, scope)
    cap = _checked(_amount(form, "hard"), _amount(form, "soft"), before.tokens)
    overridden = scope in budget_state.standing(pages.client).caps
    statement.set_cap(pages.client, scope, cap, month_of(datetime.now(UTC)), visitor.who)
    spent = _spent(pages, scope)
    lines = [f"It was: {before}. {money(spent)} is spent."]
    if cap.hard_usd is not None and cap.hard_usd <= spent:
        lines.append(f"The cap is used up: {once_full(scope)}.")
    again = {"hard": before.hard_usd} if overridden else {}
    undo = Step(
        "Set it back", link("/ui/act/set-cap" if overridden else "/ui/act/unset-cap", scope=scope, **again), act=True
    )
    return Done(f"{scope}: {cap}", tuple(lines), undo, back="/ui/money")


def _amount(form: Form, name: str) -> float | None:
    given = form.one(name).removeprefix("$")
    try:
        return float(given) if given else None
    except ValueError:
        raise BadRequest(f"the {name} cap is an amount in US dollars, such as 60") from None


def _checked(hard: float | None, soft: float | None, tokens: int | None) -> Cap:
    try:
        return Cap(hard_usd=hard, soft_usd=soft, tokens=tokens)
    except ValidationError as error:
        raise BadRequest(": ".join(first_problem(error)).strip(": ")) from None


def _preview_unset(pages: Pages, query: Form) -> Preview:
    scope = _scope(query)
    cap = load_budgets(pages.environment).cap_of(scope)
    lines = (f"policies/budgets.yaml applies again: {cap}. {money(_spent(pages, scope))} is spent this month.",)
    return Preview(f"The cap of {scope}: as the file has it?", lines, "Use the cap of the file", (("scope", scope),))


def _unset_cap(pages: Pages, form: Form, visitor: Visitor) -> Done:
    scope = _scope(form)
    statement.set_cap(pages.client, scope, None, month_of(datetime.now(UTC)), visitor.who)
    return Done(f"{scope}: {load_budgets(pages.environment).cap_of(scope)}", back="/ui/money")


def _preview_saving(pages: Pages, query: Form) -> Preview:
    if budget_state.standing(pages.client).reduced:
        return Preview(
            "Cost saving is on", ("End it: jobs use their usual routes again.",), "End cost saving", (("end", "1"),)
        )
    lines = ("Every job takes the cheapest route first, with less context and a shorter answer. No job stops.",)
    fields = (Field("reason", "Why?"), Field("for", "For how long?", "select", options=LENGTHS))
    return Preview("Save cost on every job?", lines, "Save cost", (), fields)


def _save_cost(pages: Pages, form: Form, visitor: Visitor) -> Done:
    if form.one("end"):
        cost_saving.end(pages.client, who=visitor.who)
        return Done("Cost saving is off", back="/ui/money")
    cost_saving.begin(pages.client, who=visitor.who, why=form.one("reason"), seconds=seconds_of(form))
    return Done("Cost saving is on", undo=Step("End it", "/ui/act/save-cost", act=True), back="/ui/money")


def _preview_silence(pages: Pages, query: Form) -> Preview:
    incident = incident_named(pages.client, query.one("id"))
    lines = ("No message of this kind is sent for that time; the incident is still recorded, and shown here.",)
    fields = (Field("for", "For how long?", "select", "7200", options=_SILENCES), Field("reason", "Why?"))
    return Preview(f"Silence: {incident.title}", lines, "Silence", (("id", incident.id),), fields)


def _silence(pages: Pages, form: Form, visitor: Visitor) -> Done:
    incident = incident_named(pages.client, form.one("id"))
    seconds = seconds_of(form, _SILENCES) or DEFAULT_SILENCE_SECONDS
    Incidents(pages.client).silence(incident, seconds, who=visitor.who, why=form.one("reason"))
    undo = Step("Send messages again", link("/ui/act/unsilence", id=incident.id), act=True)
    return Done("Silenced", (incident.title,), undo, back=f"/ui/incidents/{incident.id}")


def _preview_unsilence(pages: Pages, query: Form) -> Preview:
    incident = incident_named(pages.client, query.one("id"))
    return Preview("Send messages again?", (incident.title,), "Send them again", (("id", incident.id),))


def _unsilence(pages: Pages, form: Form, visitor: Visitor) -> Done:
    incident = incident_named(pages.client, form.one("id"))
    Incidents(pages.client).unsilence(incident, who=visitor.who)
    return Done("Messages are sent again", (incident.title,), back=f"/ui/incidents/{incident.id}")


WORK = {
    "cancel": Act(_preview_cancel, _cancel),
    "cancel-tenant": Act(_preview_cancel_tenant, _cancel_tenant),
    "set-cap": Act(_preview_cap, _set_cap),
    "unset-cap": Act(_preview_unset, _unset_cap),
    "save-cost": Act(_preview_saving, _save_cost),
    "silence": Act(_preview_silence, _silence),
    "unsilence": Act(_preview_unsilence, _unsilence),
}
