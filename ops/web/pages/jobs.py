"""Jobs: find them, and read the story of one; what waits for a person to answer; dead letters by their cause."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ops.reports import job_search, reviewable, why
from ops.reports.job_search import Query
from ops.reports.reviewable import text_of_message
from ops.requeue import progress
from ops.web.pages.page import Pages, link
from ops.web.pages.words import cause
from producer import keyspace
from producer.errors import BadRequest, FailoverError, UnknownJob
from producer.job import DeadReason, ForeignJob, JobResult, JobStatus, LLMJob, NewerSchema, check_id, decode_job
from producer.scripts import ask
from producer.trail import Attempt, Planned, TrailEntry
from worker.humanize import cut
from worker.notify.client_messages import load_messages
from worker.queue import dead_letters, lost
from worker.queue.dead_letters import Filters, Stats

LISTED = 50
LONGEST_TEXT = 20_000  # characters of a question or an answer on a page
CAUSES = {
    DeadReason.EXHAUSTED: "No route could answer, after every retry: requeue them when the providers work again",
    DeadReason.EXPIRED: "They waited too long: requeue them if somebody still wants the answer",
    DeadReason.REJECTED: "The providers refuse the request itself: answer it by hand, or correct it where it comes "
    "from and hand it in again; the same request would be refused again",
    DeadReason.REFUSED: "The models refuse to answer: answer it by hand",
    DeadReason.CRASHED: "Their workers crashed three times: read the workers' log, then requeue",
    DeadReason.FAILED_BY_RQ: "Another tool, an `rq worker`, took them: stop it, then requeue",
    DeadReason.OVER_BUDGET: "A cap leaves no money for them: raise the cap, then requeue",
    DeadReason.MALFORMED: "The request cannot be read: correct what hands it in, then discard",
    DeadReason.DISALLOWED: "The request is not allowed: correct what hands it in, then discard",
}

BY_HAND = (DeadReason.REJECTED, DeadReason.REFUSED)  # the same request again has the same end


def add(router: APIRouter, pages: Pages) -> None:
    @router.get("/ui/jobs")
    def jobs(request: Request) -> Response:
        given = request.query_params
        if job_id := given.get("id", "").strip():
            return RedirectResponse(f"/ui/jobs/{check_id(job_id)}", 303)
        fields = {name: given.get(name, "").strip() or None for name in ("tenant", "feature", "route", "state")}
        if fields["state"] not in (None, *job_search.STATES):
            raise BadRequest(f"the state is one of {', '.join(job_search.STATES)}")
        until = _moment(given.get("until", ""))
        query = Query(**fields, since_ms=_moment(given.get("since", "")), until_ms=until)
        found = job_search.search(pages.client, pages.queues(), query, LISTED + 1)
        listed, older = found.jobs[:LISTED], found.jobs[LISTED:]
        more = {**given, "until": _text(older[0].accepted_ms)} if older else None
        asked = {name: given.get(name, "") for name in ("tenant", "feature", "route", "state", "since", "until")}
        return pages.render(
            request, "jobs.html", jobs=listed, asked=asked, states=job_search.STATES, partly=found.partly,
            older=link("/ui/jobs", **more) if more else "",
        )  # fmt: skip

    @router.get("/ui/jobs/{job_id}")
    def job(request: Request, job_id: str) -> Response:
        try:
            result = pages.producer.fetch(job_id)
            story = why.story(pages.producer, result)
        except UnknownJob:
            return pages.failed(
                request, 404, f"There is no job {job_id}: it never was, or its result was kept long enough."
            )
        entries = [_entry(entry) for entry in result.trail]
        state = _ended_without(result) if result.status is JobStatus.DEAD else story["told"][0]
        answer = cut(result.text, LONGEST_TEXT) if result.status is JobStatus.DONE else ""
        return pages.render(
            request, "job.html", job_id=job_id, queue=story["queue"], facts=story["facts"], state=state,
            cost=story["told"][-1], result=result, entries=entries, answer=answer, question=_question(pages, job_id),
            waits=not result.status.ended,
        )  # fmt: skip

    @router.get("/ui/dead-letters")
    def letters(request: Request) -> Response:
        given = request.query_params
        queues = pages.queues()
        queue = given.get("queue") if given.get("queue") in queues else pages.producer.queue
        chosen = {name: given.get(name, "").strip() or None for name in ("reason", "tenant", "route")}
        until = given.get("until", "")
        until_ms = int(until) if until.isdecimal() else None
        filters = Filters(chosen["reason"], chosen["tenant"], chosen["route"])
        found = dead_letters.listed(pages.client, str(queue), filters, LISTED + 1, until_ms)
        stats = dead_letters.stats(pages.client, str(queue))
        counts = ask(pages.client, [("ZCARD", keyspace.failed(name)) for name in queues])
        with_letters = [name for name, count in zip(queues, counts, strict=True) if count or name == queue]
        older = (
            link("/ui/dead-letters", **{**given, "until": str(found[LISTED].died_ms)}) if len(found) > LISTED else ""
        )
        return pages.render(
            request, "dead_letters.html", queue=queue, queues=with_letters,
            chosen=chosen, stats=stats, by_hand=BY_HAND, causes=_causes(stats), letters=found[:LISTED], older=older,
            lost=lost.listed(pages.client, LISTED), lost_count=lost.count(pages.client), running=progress(pages.client),
        )  # fmt: skip

    @router.get("/ui/review")
    def review(request: Request) -> Response:
        tenant = request.query_params.get("tenant", "").strip()
        total, waiting = reviewable.waiting(pages.producer, tenant, LISTED) if tenant else (0, [])
        found, others = (
            reviewable.reviewable(pages.producer, tenant or None, LISTED, human_review=listed)
            for listed in (True, False)
        )
        known = {job.job_id for job in (*found, *others)}
        waiting = [job for job in waiting if job.job_id not in known]
        return pages.render(
            request, "review.html", found=found, others=others, tenant=tenant, waiting=waiting, total=total
        )

    @router.get("/ui/review/{job_id}")
    def one(request: Request, job_id: str) -> Response:
        job = reviewable.request_of(pages.producer, job_id)
        can_tell = "brief_delay" in load_messages(pages.environment)
        return pages.render(
            request, "review_job.html", job_id=job_id, job=job, messages=_messages(job), can_tell=can_tell
        )


def _ended_without(result: JobResult) -> str:
    """Why a job is a dead letter and what to do, without the commands that a terminal takes."""
    reason, detail = result.dead_reason, result.dead_detail or "no detail is known"
    return f"It ended without an answer, {cause(reason)}: {detail.rstrip('.')}. {CAUSES[reason]}." if reason else ""


def _entry(entry: TrailEntry) -> dict[str, Any]:
    """One line of a job's story: what it says, and how it is marked."""
    line = why.entry_told(entry)
    if isinstance(entry, Planned):
        return {"mark": "plan", "at_ms": 0, "line": line}
    if isinstance(entry, Attempt):
        line = line.partition("  ")[2] if entry.at_ms else line  # its time is shown in the reader's own
        return {"mark": "ok" if entry.outcome == "ok" else "bad", "at_ms": entry.at_ms, "line": line}
    return {"mark": "skip", "at_ms": 0, "line": line}


def _question(pages: Pages, job_id: str) -> list[tuple[str, str]]:
    (data,) = ask(pages.client, [("HGET", keyspace.job(job_id), "data")])
    try:
        return _messages(decode_job(data or b""))
    except (FailoverError, ForeignJob, NewerSchema):
        return []


def _messages(job: LLMJob) -> list[tuple[str, str]]:
    """(role, text) of each message of the request."""
    messages = job.body["messages"]
    return [(str(each.get("role", "?")), cut(text_of_message(each), LONGEST_TEXT)) for each in messages]


def _causes(stats: Stats) -> list[tuple[str, int, str]]:
    """(reason, how many, what to do) of each cause, the largest first."""
    known = {str(reason): text for reason, text in CAUSES.items()}
    return [(reason, count, known.get(reason, "buried by another tool")) for reason, count in stats.by_reason.items()]


def _moment(text: str) -> int | None:
    """Unix milliseconds of a time in UTC, as a form's field or a link has it. Raises BadRequest."""
    if not text.strip():
        return None
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadRequest(f"{cut(text, 40)} is no time: write it as 2026-11-29T03:00, in UTC") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
