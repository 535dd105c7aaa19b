"""Requeue and discard dead letters; answer a job by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ops.reports import reviewable
from ops.reports.reviewable import text_of_message
from ops.requeue import Run
from ops.web.pages.acts.act import Act, Done, Field, Preview, in_words
from ops.web.pages.next_steps import Step
from ops.web.pages.page import Pages
from ops.web.pages.words import cause
from ops.web.sessions import Form, Visitor
from producer.errors import BadRequest
from worker.humanize import many
from worker.notify.client_messages import load_messages
from worker.queue import dead_letters, lost
from worker.queue.dead_letters import GENERATIONS_ALLOWED, Filters, Requeued
from worker.reports import backlog, client_status

SAMPLE = 50  # dead letters that an estimate of the cost reads
AT_ONCE = 100  # so many are requeued before the answer, without a thread
CANARY = 5
DELIVERED = "delivered"  # the client message of policies/messages/
_FILTERS = ("reason", "tenant", "route")
_BACK = "/ui/dead-letters"


@dataclass(frozen=True)
class Chosen:
    """The dead letters that a form names: by id, or all that match filters up to a time."""

    queue: str
    ids: tuple[str, ...]
    filters: Filters
    until_ms: int

    @property
    def words(self) -> str:
        if self.ids:
            return "the chosen dead letters"
        why = self.filters.reason
        named = {"of": self.filters.tenant, "on": self.filters.route, "with the cause": cause(why) if why else None}
        words = " ".join(f"{name} {value}" for name, value in named.items() if value)
        return f"all dead letters {words}".strip()

    def pages(self, pages: Pages) -> Iterator[list[str]]:
        """Their ids, page by page, the oldest first."""
        if self.ids:
            yield list(self.ids)
            return
        for page in dead_letters.pages(pages.client, self.queue, self.filters, until_ms=self.until_ms):
            yield [job_id for job_id, _ in page]

    def count(self, pages: Pages) -> tuple[int, Sequence[str]]:
        """(how many there are, the first of them)."""
        found = 0
        first: list[str] = []
        for page in self.pages(pages):
            first += page[: SAMPLE - len(first)]
            found += len(page)
        return found, first

    def hidden(self) -> tuple[tuple[str, str], ...]:
        """The same choice, for a form."""
        if self.ids:
            return (("queue", self.queue), *(("id", job_id) for job_id in self.ids))
        pairs = ((name, getattr(self.filters, name)) for name in _FILTERS)
        given = ((name, value) for name, value in pairs if value)
        return (("queue", self.queue), ("until", str(self.until_ms)), *given)


def _chosen(pages: Pages, form: Form) -> Chosen:
    ids = tuple(form.all("id"))
    queue = form.one("queue") or pages.producer.queue
    if ids:
        by_queue = dead_letters.by_queue(pages.client, ids)
        if not by_queue:
            raise BadRequest("none of these jobs is a dead letter any more: somebody else took them")
        queue = queue if queue in by_queue else next(iter(by_queue))
        ids = tuple(by_queue[queue])
    elif not (form.one("all") or form.one("until") or any(form.one(name) for name in _FILTERS)):
        raise BadRequest("choose some dead letters first")
    until = form.one("until")
    reason, tenant, route = (form.one(name) or None for name in _FILTERS)
    filters = Filters(reason, tenant, route)
    return Chosen(queue, ids, filters, int(until) if until.isdecimal() else dead_letters.now_ms(pages.client))


def _preview_requeue(pages: Pages, query: Form) -> Preview:
    chosen = _chosen(pages, query)
    count, first = chosen.count(pages)
    if not count:
        return Preview("Nothing to requeue", ("No dead letter matches any more.",), "")
    found = backlog.of_requeued(pages.client, chosen.queue, count, first)
    canary = str(CANARY) if count > CANARY else ""
    fields = (
        Field("canary", "First try this many, and the rest only if they are done", "number", canary, "Empty: all at once."),
        Field("rate", "At most this many a second", "number", "", "Empty: as fast as possible; routes keep their own limits."),
        Field("force", f"Also those that were requeued {GENERATIONS_ALLOWED} times already", "check"),
    )  # fmt: skip
    title = f"Requeue {many(count, 'dead letter')}?"
    lines = (
        f"This takes {chosen.words}. Each runs again once.",
        *in_words(found),
    )
    return Preview(title, lines, "Requeue", chosen.hidden(), fields)


def _requeue(pages: Pages, form: Form, visitor: Visitor) -> Done:
    chosen = _chosen(pages, form)
    canary, rate = _number(form, "canary"), _number(form, "rate")
    force = form.one("force") == "on"
    count, _ = chosen.count(pages)
    if count <= AT_ONCE and not canary and not rate:
        done = Requeued()
        dead_letters.requeue(pages.client, chosen.queue, chosen.pages(pages), who=visitor.who, force=force, done=done)
        return Done(f"{done.requeued} requeued", tuple(_words(done)), back=_BACK)
    run = Run(pages.producer, visitor.who, count)
    run.start(chosen.queue, chosen.pages(pages), canary=min(int(canary), count), rate=rate or None, force=force)
    lines = [f"{int(canary)} are tried first; the rest follows only if they are done."] if canary else []
    return Done(
        f"{many(count, 'job')}: the requeue has begun",
        (*lines, "The page Dead letters shows how far it is."),
        back=_BACK,
    )


def _words(done: Requeued) -> Iterator[str]:
    if done.refused:
        yield f"{done.refused} refused: requeued {GENERATIONS_ALLOWED} times already."
    if done.gone:
        yield f"{done.gone} were not dead letters any more."
    if not (done.requeued or done.refused or done.gone):
        yield "None was left: somebody else took them meanwhile."


def _number(form: Form, name: str) -> float:
    given = form.one(name)
    try:
        value = float(given or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise BadRequest(f"{name} is a number, such as 5")
    return value


def _preview_discard(pages: Pages, query: Form) -> Preview:
    chosen = _chosen(pages, query)
    count, _ = chosen.count(pages)
    lines = ("They get no answer any more. They are kept as cancelled for a week, and this cannot be taken back.",)
    return Preview(
        f"Discard {many(count, 'dead letter')} for good?", lines, "Discard for good", chosen.hidden(), danger=True
    )


def _discard(pages: Pages, form: Form, visitor: Visitor) -> Done:
    chosen = _chosen(pages, form)
    discarded = 0
    for page in list(chosen.pages(pages)):
        discarded += dead_letters.discard(pages.client, chosen.queue, page, who=visitor.who)
    return Done(f"{many(discarded, 'dead letter')} discarded", back=_BACK)


def _preview_lost(pages: Pages, query: Form) -> Preview:
    count = lost.count(pages.client)
    lines = (
        "Hand them in again first, where they came from: their data is gone from Redis, so they will get no answer here.",
    )
    return Preview(f"Take {many(count, 'lost job')} off the list?", lines, "Take them off the list")


def _discard_lost(pages: Pages, form: Form, visitor: Visitor) -> Done:
    gone = lost.discard(pages.client, (), who=visitor.who)
    return Done(f"{gone} taken off the list of lost jobs", back=_BACK)


def _preview_answer(pages: Pages, query: Form) -> Preview:
    job_id = query.one("id")
    job = reviewable.request_of(pages.producer, job_id)
    question = "\n\n".join(f"{message['role']}: {text_of_message(message)}" for message in job.body["messages"])
    lines = (f"{job.job_type} for {job.tenant_id}. Your text becomes the job's result: whoever waits for it gets it.",)
    field = Field("answer", "The answer", "long", required=True)
    return Preview(f"Answer {job_id}", lines, "Hand in the answer", (("id", job_id),), (field,), text=question)


def _answer(pages: Pages, form: Form, visitor: Visitor) -> Done:
    job_id, answer = form.one("id"), form.one("answer")
    if not answer:
        raise BadRequest("the answer is empty")
    keep = pages.producer.policies.of_known("default").keep_results_seconds
    dead_letters.resolve(pages.client, job_id, answer, who=visitor.who, keep_seconds=keep)
    client = client_status.owner(pages.client, job_id)
    message = load_messages(pages.environment).get(DELIVERED)
    text = message.filled(client.facts(None)) if message else ""
    step = Step("See the job", f"/ui/jobs/{job_id}")
    return Done(
        "The answer is handed in",
        (f"{job_id} is done, answered by {visitor.name}.",),
        step,
        text,
        client.tenant,
        "/ui/review",
    )


DEAD_LETTERS = {
    "requeue": Act(_preview_requeue, _requeue),
    "discard": Act(_preview_discard, _discard),
    "discard-lost": Act(_preview_lost, _discard_lost),
    "answer": Act(_preview_answer, _answer),
}
