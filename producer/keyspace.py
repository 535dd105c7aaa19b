"""Every Redis key that failover-worker reads or writes. No other file spells one.

RQ's own (formats of rq 2.12, so that `rq info`, rq-dashboard and rq-exporter show the truth):

| key                          | type   | what                                             | written by                         |
|------------------------------|--------|--------------------------------------------------|------------------------------------|
| rq:job:{id}                  | hash   | the job: RQ's fields and ours (`JobField`)       | enqueue, every transition          |
| rq:queues                    | set    | keys of all queues                               | enqueue                            |
| rq:queue:{queue}             | list   | ids of queued jobs, next one at the head         | enqueue, release, promote, reap    |
| rq:wip:{queue}               | zset   | {job}:{execution}, score now + 24 h              | claim, every settle                |
| rq:execution:{job}:{exec}    | hash   | one execution, gone after 24 h                   | claim, every settle                |
| rq:executions:{job}          | zset   | executions of a job, gone after 24 h             | claim, every settle                |
| rq:scheduled:{queue}         | zset   | retried and parked jobs, score due (s)           | reschedule, promote                |
| rq:finished:{queue}          | zset   | done jobs, score end of retention (s)            | complete                           |
| rq:failed:{queue}            | zset   | dead letters, score end of retention (s)         | bury, reap                         |
| rq:canceled:{queue}          | zset   | cancelled and discarded jobs                     | cancel                             |
| rq:results:{id}              | stream | results; one entry a job                         | complete, bury, resolve            |
| rq:workers, rq:workers:{q}   | set    | worker keys                                      | RQ's worker registration           |
| rq:worker:{name}             | hash   | a worker, gone 30 s after its last heartbeat     | RQ's worker registration, complete |
| rq:suspended                 | string | RQ's own pause (`rq suspend`)                    | RQ                                 |

Ours:

| key                         | type   | what                                                  | lives               |
|-----------------------------|--------|-------------------------------------------------------|---------------------|
| pause_ai_tasks              | string | "1" = paused; "0", empty or absent = running          | until resume        |
| pause_ai_tasks:{queue}      | string | the same for one queue                                | until resume        |
| failover:paused-provider:{p} | string | the same for the routes of one provider              | until resume        |
| failover:disabled:{route}   | string | "1" = no worker calls the route: its kill switch     | until enabled       |
| failover:pause              | hash   | a flag's key: its note (JSON: who, why, since, until) | until resume        |
| failover:stopped:{queue}    | hash   | how long it was paused (lua/shared/running_clock.lua) | for good            |
| failover:lanes:{queue}      | list   | the tenants in turn, as in lua/shared/fair_queue.lua  | while there are any |
| failover:lane:{queue}|{tenant} | list | a tenant's queued jobs, while others' fill the list  | until they are claimed |
| failover:filler:{queue}     | string | the tenant whose jobs fill the list                   | for good            |
| failover:first:{queue}      | string | how many at the list's head go before all lanes       | while there are lanes |
| failover:leases:{queue}     | zset   | {job}:{execution}, score lease end (ms of Redis TIME) | while executed      |
| failover:accepted:{queue}   | zset   | jobs accepted and not ended, score expiry (ms)        | until done or dead  |
| failover:accepted:{queue}:promised | zset | the same jobs, score time promised (ms)  | the same            |
| failover:idempotency:{hash} | hash   | job_id, fingerprint of a tenant's idempotency key     | as long as its job  |
| failover:rate:{tenant}      | string | when its next job over HTTP is due (ms), for its rate | until then          |
| failover:spend              | hash   | {provider} or {provider}:{budget id}: what billing said (JSON) | for good   |
| failover:spend-message:{hash} | string | a message of billing that was heard                 | 7 days              |
| failover:reservations       | hash   | a row of the ledger whose call runs, by its id (JSON) | while it runs       |
| failover:reservations:ages  | zset   | the same, score last seen to run (ms)                 | the same            |
| failover:ledger:{month}     | stream | a row of each attempt that was settled or released    | 45 days             |
| failover:ambiguous:{month}  | hash   | rows of attempts that may have been billed (JSON)     | 45 days             |
| failover:spent:{month}      | hash   | sums of those rows, as in worker/money/lua/ledger_rows.lua        | 400 days            |
| failover:ladder:{month}     | hash   | the alert threshold that a scope has reached (JSON)   | 45 days             |
| failover:booked:{worker}    | string | number of a worker's last batch of rows, and its reply | 1 h                |
| failover:limit:{route or provider} | hash | requests and tokens of the last minute, by ticks | 1 h                 |
| failover:limit:{...}:open   | zset   | rows of the calls that run under it, score begun (ms) | 1 day               |
| failover:budgets            | hash   | a scope: the caps that operators set over the file's (JSON) | until taken back |
| failover:reduce             | string | somebody reduces the cost of every job (JSON: who, why, since) | as long as they said |
| failover:cache:{tenant}:{feature}:{hash} | string | a kept answer (zlib of JSON); all three hashed | its feature's ttl_seconds |
| failover:claim:{token}      | string | what a claim returned, for its resend                 | 60 s                |
| failover:quarantine         | hash   | queue entries whose job hash cannot be read           | until someone acts  |
| failover:routes:{worker}    | string | a worker's slots, and the routes of its map (JSON)    | 30 s                |
| failover:breaker:{route}    | hash   | a route's breaker and rest, as in worker/breakers/lua/breaker.lua | 7 days unused    |
| failover:calls:{route}      | list   | its latest 200 calls, newest first: +ms@s or -ms@s    | 7 days unused       |
| failover:recorded:{worker}  | string | number of a worker's last report on its attempts      | 1 h                 |
| failover:dead:{queue}       | zset   | dead letters, score time of burial (ms)               | until requeued, ... |
| failover:dead:{queue}:*:*   | zset   | the same by reason:, tenant: and route:               | the same            |
| failover:dead:{queue}:indexes | set  | the keys of those indexes                             | the same            |
| failover:audit              | stream | who requeued, resolved, discarded, cancelled what     | the last 100,000    |
| failover:audit-turn:{queue} | string | a worker looked for strays lately                     | 5 min               |
| failover:news:{queue}       | hash   | counts that no incident holds yet: dead letters, degraded, saved | until folded |
| failover:news:{queue}:first | list   | ids of the first of those dead letters                | until folded        |
| failover:subscribers        | hash   | whose job events are wanted: `*`, a tenant            | 7 days unspoken of  |
| failover:outbox:{subscriber} | stream | ends of jobs not delivered yet; the last 100,000    | until delivered     |
| failover:notifier           | string | the worker that tells people                          | 6 s                 |
| failover:gone               | zset   | workers that vanished, score first seen to be (ms)    | 1 day               |
| failover:trouble            | hash   | a channel: since when it takes nothing, and why (JSON) | until it takes one |
| failover:incidents          | hash   | the open ones: {kind}|{subject}|{queue} -> id         | until resolved      |
| failover:incidents:all      | zset   | every incident, score opened (ms)                     | 400 days            |
| failover:incidents:untold   | set    | resolved ones that somebody has to be told of         | until told, 1 day   |
| failover:incidents:number   | string | the id of the latest                                  | for good            |
| failover:incident:{id}      | hash   | one incident: its state, its counts, what each channel was told | 400 days  |
| failover:incident:{id}:story | list  | what happened in it (JSON)                            | 400 days            |
| failover:silence:{incident key} | string | who keeps it quiet, and why                       | as long as they said |
| failover:wake               | pubsub | a job became available                                | -                   |
| failover:breakers           | pubsub | a breaker changed (JSON)                              | -                   |
| failover:control            | pubsub | an operator changed what may run                      | -                   |

Redis Cluster is not supported (RQ is not either): scripts reach job keys by the prefixes given here.
"""

from __future__ import annotations

from hashlib import sha256

JOB = "rq:job:"
QUEUE = "rq:queue:"
QUEUES = "rq:queues"
EXECUTION = "rq:execution:"
EXECUTIONS = "rq:executions:"
RESULTS = "rq:results:"
WORKER = "rq:worker:"
WORKERS = "rq:workers"
SUSPENDED = "rq:suspended"

PAUSE = "pause_ai_tasks"
PAUSE_NOTES = "failover:pause"
SPEND = "failover:spend"
NOTIFIER = "failover:notifier"
SUBSCRIBERS = "failover:subscribers"
INCIDENTS = "failover:incidents"
ALL_INCIDENTS = "failover:incidents:all"
UNTOLD_INCIDENTS = "failover:incidents:untold"
GONE = "failover:gone"
TROUBLE = "failover:trouble"
QUARANTINE = "failover:quarantine"
WAKE = "failover:wake"
BREAKERS = "failover:breakers"
CONTROL = "failover:control"
AUDIT = "failover:audit"
CLAIM = "failover:claim:"
LEASES = "failover:leases:"
RESERVATIONS = "failover:reservations"
RESERVATION_AGES = "failover:reservations:ages"
LEDGER = "failover:ledger:"
AMBIGUOUS = "failover:ambiguous:"
SPENT = "failover:spent:"
ALERT_THRESHOLDS = "failover:ladder:"
LIMIT = "failover:limit:"
BUDGETS = "failover:budgets"
REDUCE = "failover:reduce"


def job(job_id: str) -> str:
    return JOB + job_id


def queue(name: str) -> str:
    return QUEUE + name


def round_robin(queue_name: str) -> str:
    """Spelled by lua/shared/fair_queue.lua too, as the other keys of the line."""
    return "failover:lanes:" + queue_name


def tenant_queue(queue_name: str, tenant_id: str) -> str:
    return f"failover:lane:{queue_name}|{tenant_id}"


def wip(name: str) -> str:
    return "rq:wip:" + name


def scheduled(name: str) -> str:
    return "rq:scheduled:" + name


def finished(name: str) -> str:
    return "rq:finished:" + name


def canceled(name: str) -> str:
    return "rq:canceled:" + name


def failed(name: str) -> str:
    return "rq:failed:" + name


def results(job_id: str) -> str:
    return RESULTS + job_id


def execution(job_id: str, execution_id: str) -> str:
    return f"{EXECUTION}{job_id}:{execution_id}"


def executions(job_id: str) -> str:
    return EXECUTIONS + job_id


def worker(name: str) -> str:
    return WORKER + name


def workers_of(queue_name: str) -> str:
    return f"{WORKERS}:{queue_name}"


def worker_commands(name: str) -> str:
    """The pubsub channel of RQ's commands to one worker (rq.command.PUBSUB_CHANNEL_TEMPLATE)."""
    return "rq:pubsub:" + name


def pause_of(queue_name: str) -> str:
    return f"{PAUSE}:{queue_name}"


def paused_provider(provider: str) -> str:
    return "failover:paused-provider:" + provider


def disabled(route: str) -> str:
    return "failover:disabled:" + route


def stopped(queue_name: str) -> str:
    """Spelled by lua/shared/pause_flags.lua too."""
    return "failover:stopped:" + queue_name


def leases(queue_name: str) -> str:
    return LEASES + queue_name


def accepted(queue_name: str) -> str:
    return "failover:accepted:" + queue_name


def promised(queue_name: str) -> str:
    """Spelled by lua/shared/leaves.lua too. What is scored before now is late."""
    return accepted(queue_name) + ":promised"


def dead(queue_name: str) -> str:
    return "failover:dead:" + queue_name


def dead_by(queue_name: str, kind: str, value: str) -> str:
    """The index of dead letters by `reason`, `tenant` or `route`, as lua/shared/dead_letters.lua spells it."""
    return f"{dead(queue_name)}:{kind}:{value}"


def news(queue_name: str) -> str:
    """Spelled by lua/shared/dead_letters.lua too."""
    return "failover:news:" + queue_name


def first_news(queue_name: str) -> str:
    return news(queue_name) + ":first"


def outbox(subscriber: str) -> str:
    """Spelled by lua/shared/event.lua too."""
    return "failover:outbox:" + subscriber


def incident(incident_id: str) -> str:
    return "failover:incident:" + incident_id


def story(incident_id: str) -> str:
    return incident(incident_id) + ":story"


def silence(incident_key: str) -> str:
    return "failover:silence:" + incident_key


def dead_indexes(queue_name: str) -> str:
    return dead(queue_name) + ":indexes"


def audit_turn(queue_name: str) -> str:
    return "failover:audit-turn:" + queue_name


def claim(token: str) -> str:
    return CLAIM + token


def routes_of(worker_name: str) -> str:
    return "failover:routes:" + worker_name


def breaker(route: str) -> str:
    return "failover:breaker:" + route


def calls(route: str) -> str:
    return "failover:calls:" + route


def recorded(worker_name: str) -> str:
    return "failover:recorded:" + worker_name


def cache(tenant_id: str, feature: str, digest: str) -> str:
    return f"failover:cache:{_short(tenant_id)}:{_short(feature)}:{digest}"


def cached(tenant_id: str | None, feature: str | None) -> str:
    """The pattern of such keys; None: of all."""
    wanted = ("*" if name is None else _short(name) for name in (tenant_id, feature))
    return "failover:cache:" + ":".join(wanted) + ":*"


def _short(name: str) -> str:
    """Hashed: features come from outside."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def booked(worker_name: str) -> str:
    return "failover:booked:" + worker_name


def rate(tenant_id: str) -> str:
    return "failover:rate:" + tenant_id


def spend_message(message_id: str) -> str:
    """Hashed: ids come from outside."""
    return "failover:spend-message:" + sha256(message_id.encode()).hexdigest()


def idempotency(tenant_id: str, key: str) -> str:
    """The record of one tenant's idempotency key. Hashed: keys come from outside, of any length and alphabet."""
    return "failover:idempotency:" + sha256(f"{tenant_id}\0{key}".encode()).hexdigest()


class JobField:
    """Our fields in RQ's job hash, beside RQ's own. Times are milliseconds of Redis TIME."""

    ACCEPTED = "accepted_ms"
    PROMISED = "promised_ms"  # the job is late after this (its policy's max_time_to_answer_seconds)
    EXPIRES = "expires_ms"  # the job is worth nothing after this, if its queue never stands paused
    STOPPED = "stopped_ms"  # how long its queue had stood paused when it was accepted
    IDEMPOTENCY = "idempotency"  # key of its idempotency record
    LEASE = "lease"  # execution id that holds the job now
    SETTLED = "settled"  # execution id that last ended one, for the resend of a settle
    EXECUTIONS = "executions"  # executions that failed
    CRASHES = "crashes"  # executions whose worker vanished
    ATTEMPTS = "attempts"  # HTTP calls to providers so far
    RUN_MS = "run_ms"  # time worked in executions that ended
    TRAIL = "trail"  # JSON list of attempts so far
    WAITING = "waiting"  # retry | park | park in turn, while scheduled
    WAITING_REASON = "waiting_reason"  # why, as producer/waiting.py names it
    WAITING_SUBJECTS = "waiting_subjects"  # what it waits for: `provider:openai tenant:acme`
    WAITING_FOR = "waiting_for"  # why, in words
    WAITING_UNTIL = "waiting_until_ms"
    DEAD_REASON = "dead_reason"
    DEAD_DETAIL = "dead_detail"
    DEAD_ROUTE = "dead_route"  # the last one tried
    TENANT = "tenant"
    TYPE = "job_type"
    GENERATION = "generation"  # how often it was requeued from the dead letters
    REQUEUED_BY = "requeued_by"  # token of the call that did
    REQUEUED_WHO = "requeued_who"
    REQUEUED = "requeued_ms"
