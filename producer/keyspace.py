"""Every Redis key that failover-worker reads or writes. No other Python file spells one.

RQ's own (in the formats of rq 2.12, so that `rq info`, rq-dashboard and rq-exporter work):

| key                          | type   | what                                             | written by                         |
|------------------------------|--------|--------------------------------------------------|------------------------------------|
| rq:job:{id}                  | hash   | RQ's fields and ours (`JobField`); 0.5 kB once done | enqueue, every transition |
| rq:queues                    | set    | keys of all queues                               | enqueue                            |
| rq:queue:{queue}             | list   | ids of queued jobs, next one at the head         | enqueue, release, promote, reap    |
| rq:wip:{queue}               | zset   | {job}:{execution}, score now + 24 h              | claim, every settle                |
| rq:execution:{job}:{exec}    | hash   | one execution, gone after 24 h                   | claim, every settle                |
| rq:executions:{job}          | zset   | executions of a job, gone after 24 h             | claim, every settle                |
| rq:scheduled:{queue}         | zset   | retried, parked and delayed jobs, score due (s)  | enqueue, reschedule, promote       |
| rq:finished:{queue}          | zset   | done jobs, score end of retention (s)            | complete                           |
| rq:failed:{queue}            | zset   | dead letters, score end of retention (s)         | bury, reap                         |
| rq:canceled:{queue}          | zset   | cancelled and discarded jobs                     | cancel                             |
| rq:results:{id}              | stream | results; one entry a job (producer/results.py)   | complete, bury, resolve            |
| rq:workers, rq:workers:{q}   | set    | worker keys                                      | RQ's worker registration           |
| rq:worker:{name}             | hash   | a worker, gone 30 s after its last heartbeat     | RQ's worker registration, complete |
| rq:suspended                 | string | RQ's own pause (`rq suspend`)                    | RQ                                 |

Ours:

| key                         | type   | what                                                  | lives               |
|-----------------------------|--------|-------------------------------------------------------|---------------------|
| pause_ai_tasks              | string | "1" = paused; "0", empty or absent = running          | until resume        |
| pause_ai_tasks:{queue}      | string | the same for one queue                                | until resume        |
| failover:paused-provider:{p} | string | the same for the routes of one provider              | until resume        |
| failover:paused-tenant:{t}  | string | the same for the jobs of one tenant                   | until resume        |
| failover:disabled:{route}   | string | kill switch: "1" = no worker calls the route          | until enabled       |
| failover:pause              | hash   | a flag's key: its note (JSON: who, why, since, until) | until resume        |
| failover:stopped:{queue}    | hash   | how long it was paused (lua/shared/running_clock.lua) | for good            |
| failover:stopped-tenant:{t} | hash   | the same for a tenant that an operator paused         | for good            |
| failover:lanes:{queue}      | list   | round robin of tenants (lua/shared/fair_queue.lua)    | with tenant queues  |
| failover:lane:{queue}|{tenant} | list | tenant queue: a tenant's jobs beside RQ's list       | until claimed       |
| failover:filler:{queue}     | string | the tenant whose jobs fill RQ's list                  | for good            |
| failover:first:{queue}      | string | how many of the list's jobs go before all tenant queues | with tenant queues |
| failover:leases:{queue}     | zset   | {job}:{execution}, score lease end (ms of Redis TIME) | while executed      |
| failover:accepted:{queue}   | zset   | jobs accepted and not ended, score expiry (ms)        | until done or dead  |
| failover:accepted:{queue}:promised | zset | the same jobs, score time promised (ms)  | the same            |
| failover:idempotency:{hash} | hash   | job_id, fingerprint of an idempotency key that a caller gave | as long as its job |
| failover:retry:{hash}       | string | the job of a request over /v1, which an SDK may send again | 1 h             |
| failover:rate:{tenant}      | string | when its next job over HTTP is allowed (ms), by its rate | until then       |
| failover:spend              | hash   | {provider} or {provider}:{budget id}: the last billing report (JSON); 1,000 | for good |
| failover:spend-message:{hash} | string | a billing report that was counted                   | 7 days              |
| failover:reservations       | hash   | ledger rows of running calls, by row id (JSON)        | while the call runs |
| failover:reservations:ages  | zset   | the same row ids, score last seen running (ms)        | the same            |
| failover:ledger:{month}     | stream | ledger rows of attempts that were settled or released | as history.yaml says |
| failover:ambiguous:{month}  | hash   | rows of attempts that may have been billed (JSON)     | as history.yaml says |
| failover:ledger:folded:{month} | hash | sums of the rows that have left Redis, and what is capped | 400 days         |
| failover:spent:{month}:recount | hash  | lost sums while they are counted again                | 1 h                 |
| failover:spent:{month}:recount:{kind} | hash | ambiguous or open rows that are still to be counted | 1 h             |
| failover:happened           | stream | outcomes that are not in the history yet (JSON); at most 200,000 | until counted |
| failover:history:cursor     | string | up to where the history counts outcomes and ledger rows (JSON) | for good    |
| failover:history:minute:{n} | string | what happened in a minute (worker/history/document.py); 40 names a dimension | 48 h |
| failover:history:hour:{n}   | string | the same for an hour; n counts from 1970                | 400 days            |
| failover:history:maintenance:{n} | string | the part of an hour that lies in maintenance windows | 400 days    |
| failover:history:leader     | string | the worker that writes the history and takes old rows out of Redis | 60 s    |
| failover:freeze             | string | why launches are frozen: the error budget burns (JSON) | 120 s, renewed     |
| failover:followed:{what}    | string | a route that was disabled because the error budget burned, or `cost saving` | 1 h, 24 h |
| failover:history:writing    | string | the rows that it is writing to HISTORY_URL (JSON)     | until they are folded |
| failover:schedules          | hash   | a schedule's handled times and last start (JSON); 1,000 | for good            |
| failover:schedules:leader   | string | the worker that starts what is scheduled              | 20 s                |
| failover:spent:{month}      | hash   | sums of the rows (lua/ledger_sums.lua): 20,000 fields, and what is capped | 400 days |
| failover:ladder:{month}     | hash   | the alert threshold that a scope has reached (JSON)   | 45 days             |
| failover:booked:{worker}    | string | number of a worker's last batch of rows, and its reply | 1 h                |
| failover:limit:{route or provider} | hash | requests and tokens of the last minute, by ticks | 1 h                 |
| failover:limit:{...}:open   | zset   | row ids of the calls that run under it, score begun (ms) | 1 day            |
| failover:budgets            | hash   | by scope: the caps that operators set over the file's (JSON) | until removed |
| failover:memory             | string | how much of maxmemory is used (percent), by the last enqueue that asked | 250 ms |
| failover:reduce             | string | operators reduce the cost of every job (JSON: who, why, since) | until its end |
| failover:cache:{tenant}:{feature}:{hash} | string | a kept answer (zlib of JSON); all three hashed | its feature's ttl_seconds |
| failover:claim:{token}      | string | what a claim returned, for its resend                 | 60 s                |
| failover:quarantine         | hash   | lost jobs: id -> queue, why, when (JSON); 10,000 and `(others)` | until discarded |
| failover:routes:{worker}    | string | a worker's slots, routes and warnings (JSON)          | 30 s                |
| failover:breaker:{route}    | hash   | a route's breaker and cooldown, as in worker/breakers/lua/breaker.lua | 7 days unused |
| failover:calls:{route}      | list   | its latest 200 calls, newest first: +ms@s or -ms@s    | 7 days unused       |
| failover:recorded:{worker}  | string | number of a worker's last report to the breakers      | 1 h                 |
| failover:dead:{queue}       | zset   | dead letters, score time of burial (ms)               | until requeued, ... |
| failover:dead:{queue}:*:*   | zset   | the same by reason:, tenant: and route:               | the same            |
| failover:dead:{queue}:indexes | set  | the keys of those indexes                             | the same            |
| failover:audit              | stream | who requeued, resolved, discarded, cancelled what     | the last 100,000    |
| failover:tokens             | hash   | by name: a token of the web process, hashed (JSON); at most 10,000 | until revoked |
| failover:web:key            | string | 32 random bytes that sign the sessions of the pages   | for good            |
| failover:drills             | list   | drills that were held, newest first (JSON); 100       | for good            |
| failover:drill              | string | a drill on real providers: feature, provider, fault (JSON) | 10 s unless renewed |
| failover:web:requeuing      | string | a requeue that a page began: its counts (JSON)          | 1 h                 |
| failover:wakes:{queue}      | hash   | wakes of parked jobs that are not finished: cause -> state; 100 | until finished, 1 day |
| failover:audit-turn:{queue} | string | a worker has looked for stray jobs                    | 5 min               |
| failover:news:{queue}       | hash   | 2,000 counts of dead and degraded jobs, in no incident yet | until folded |
| failover:news:{queue}:first | list   | ids of the first 10 of those dead letters             | until folded        |
| failover:subscribers        | hash   | whose job events have a subscriber: `*`, a tenant     | 7 days unless renewed |
| failover:outbox:{subscriber} | stream | ends of jobs not delivered yet; the last 100,000    | until delivered     |
| failover:notifier           | string | the worker that sends the messages to people          | 6 s                 |
| failover:gone               | zset   | workers that vanished, score when first noticed (ms)  | 1 day               |
| failover:doctor:{name}      | string | scratch key of one `failover doctor`, written and deleted in one script | never kept  |
| failover:trouble            | hash   | by channel: since when it accepts no message, and why (JSON) | until it accepts one |
| failover:incidents          | hash   | the open ones: {kind}|{subject}|{queue} -> id         | until resolved      |
| failover:incidents:all      | zset   | every incident, score opened (ms)                     | 400 days            |
| failover:incidents:untold   | set    | resolved ones that a channel still needs a message of | until sent, 1 day   |
| failover:incidents:number   | string | the id of the latest                                  | for good            |
| failover:incident:{id}      | hash   | an incident: state, counts (2,000 fields), what each channel was sent | 400 days |
| failover:incident:{id}:story | list  | the first 2,000 lines of what happened in it (JSON)   | 400 days            |
| failover:silence:{incident key} | string | who silenced it, and why                          | until its end       |
| failover:scratch            | stream | a results stream while it is copied                   | never kept          |
| failover:response:{id}      | hash   | a response of /v1/responses: its tenant and request (compressed) | as long as its job |
| failover:file:{id}          | hash   | a file of /v1/files: its tenant, name, purpose, size  | 30 days             |
| failover:file:{id}:parts    | list   | its content, compressed, or where it is at FILES_URL  | 30 days             |
| failover:files:of:{tenant}  | zset   | a tenant's latest 10,000 files, score created (s)     | 30 days             |
| failover:files:kept         | zset   | files whose content is in Redis, score when it is gone (s) | 50 MB of content |
| failover:files:sizes        | hash   | bytes that the content of each of them takes          | 50 MB of content    |
| failover:batch:{id}         | hash   | a batch of /v1/batches: its state, counts, times      | 30 days after its end |
| failover:batch:{id}:runner  | string | the web process that runs it                          | 12 s                |
| failover:batches:of:{tenant} | zset  | a tenant's latest 10,000 batches, score created (s)   | 60 days             |
| failover:batches:open       | set    | batches that have not ended                           | until they end      |
| failover:batches:running    | hash   | a waiting `failover batch run`: its progress (JSON)   | until it ends       |
| failover:live:{id}          | list   | the text of a job with `live` while it comes: at most 20 pieces a second | 15 min |
| failover:job:{id}           | pubsub | the job ended, or there is more of its live answer    | -                   |
| failover:wake               | pubsub | a job became available                                | -                   |
| failover:breakers           | pubsub | a breaker changed (JSON)                              | -                   |
| failover:control            | pubsub | an operator changed what may run                      | -                   |

Redis Cluster is not supported (nor is it by RQ): scripts make the keys of jobs from the prefixes given here.
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
LOST = "failover:quarantine"  # of a time when it held only entries that could not be read
WAKE = "failover:wake"
BREAKERS = "failover:breakers"
CONTROL = "failover:control"
AUDIT = "failover:audit"
TOKENS = "failover:tokens"
WEB_KEY = "failover:web:key"
DRILLS = "failover:drills"
DRILL = "failover:drill"
REQUEUING = "failover:web:requeuing"
CLAIM = "failover:claim:"
LEASES = "failover:leases:"
RESERVATIONS = "failover:reservations"
RESERVATION_AGES = "failover:reservations:ages"
LEDGER = "failover:ledger:"
AMBIGUOUS = "failover:ambiguous:"
SPENT = "failover:spent:"
RETRY = "failover:retry:"
FILES_KEPT = "failover:files:kept"
FILE_SIZES = "failover:files:sizes"
OPEN_BATCHES = "failover:batches:open"
BATCH_RUNS = "failover:batches:running"
ALERT_THRESHOLDS = "failover:ladder:"
LIMIT = "failover:limit:"
HAPPENED = "failover:happened"  # lua/shared/happened.lua spells it too
HISTORY_CURSOR = "failover:history:cursor"
HISTORY_LEADER = "failover:history:leader"
FREEZE = "failover:freeze"
HISTORY_WRITING = "failover:history:writing"
SCHEDULES = "failover:schedules"
SCHEDULES_LEADER = "failover:schedules:leader"
BUDGETS = "failover:budgets"
REDUCE = "failover:reduce"
MEMORY = "failover:memory"


def job(job_id: str) -> str:
    return JOB + job_id


def queue(name: str) -> str:
    return QUEUE + name


def round_robin(queue_name: str) -> str:
    """lua/shared/fair_queue.lua spells it too, and the other keys of the fair queue."""
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


def doctor(name: str) -> str:
    """A scratch key, and a channel, of one `failover doctor`."""
    return f"failover:doctor:{name}"


def live(job_id: str) -> str:
    return "failover:live:" + job_id


def response(response_id: str) -> str:
    return "failover:response:" + response_id


def file(file_id: str) -> str:
    return "failover:file:" + file_id


def file_parts(file_id: str) -> str:
    return f"failover:file:{file_id}:parts"


def files_of(tenant_id: str) -> str:
    return "failover:files:of:" + tenant_id


def batch(batch_id: str) -> str:
    return "failover:batch:" + batch_id


def batch_runner(batch_id: str) -> str:
    return f"failover:batch:{batch_id}:runner"


def batches_of(tenant_id: str) -> str:
    return "failover:batches:of:" + tenant_id


def job_channel(job_id: str) -> str:
    return "failover:job:" + job_id


def worker_commands(name: str) -> str:
    """The pubsub channel of RQ's commands to one worker (rq.command.PUBSUB_CHANNEL_TEMPLATE)."""
    return "rq:pubsub:" + name


def pause_of(queue_name: str) -> str:
    return f"{PAUSE}:{queue_name}"


def paused_provider(provider: str) -> str:
    return "failover:paused-provider:" + provider


def paused_tenant(tenant_id: str) -> str:
    """lua/shared/pause_flags.lua spells it too."""
    return "failover:paused-tenant:" + tenant_id


def stopped_tenant(tenant_id: str) -> str:
    """lua/shared/pause_flags.lua spells it too."""
    return "failover:stopped-tenant:" + tenant_id


def disabled(route: str) -> str:
    return "failover:disabled:" + route


def stopped(queue_name: str) -> str:
    """lua/shared/pause_flags.lua spells it too."""
    return "failover:stopped:" + queue_name


def leases(queue_name: str) -> str:
    return LEASES + queue_name


def accepted(queue_name: str) -> str:
    return "failover:accepted:" + queue_name


def promised(queue_name: str) -> str:
    """lua/shared/leaves.lua spells it too. Jobs with a score before now are late."""
    return accepted(queue_name) + ":promised"


def dead(queue_name: str) -> str:
    return "failover:dead:" + queue_name


def dead_by(queue_name: str, kind: str, value: str) -> str:
    """The index of dead letters by `reason`, `tenant` or `route`, as lua/shared/dead_letters.lua spells it."""
    return f"{dead(queue_name)}:{kind}:{value}"


def news(queue_name: str) -> str:
    """lua/shared/dead_letters.lua spells it too."""
    return "failover:news:" + queue_name


def first_news(queue_name: str) -> str:
    return news(queue_name) + ":first"


def outbox(subscriber: str) -> str:
    """lua/shared/event.lua spells it too."""
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
    """The pattern of the keys of kept answers; None for all tenants, or all features."""
    wanted = ("*" if name is None else _short(name) for name in (tenant_id, feature))
    return "failover:cache:" + ":".join(wanted) + ":*"


def _short(name: str) -> str:
    """A hash, because names of features come from outside."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def minute(number: int) -> str:
    return f"failover:history:minute:{number}"


def hour(number: int) -> str:
    return f"failover:history:hour:{number}"


def followed(what: str) -> str:
    return f"failover:followed:{what}"


def maintained_hour(number: int) -> str:
    return f"failover:history:maintenance:{number}"


def booked(worker_name: str) -> str:
    return "failover:booked:" + worker_name


def rate(tenant_id: str) -> str:
    return "failover:rate:" + tenant_id


def spend_message(message_id: str) -> str:
    """Hashed, because ids come from outside."""
    return "failover:spend-message:" + sha256(message_id.encode()).hexdigest()


def idempotency(tenant_id: str, key: str) -> str:
    """The record of one tenant's idempotency key. Hashed: keys come from outside, with any length and characters."""
    return "failover:idempotency:" + sha256(f"{tenant_id}\0{key}".encode()).hexdigest()


class JobField:
    """Our fields in RQ's job hash. Times are Unix milliseconds of Redis TIME."""

    ACCEPTED = "accepted_ms"
    PROMISED = "promised_ms"  # the job is late after this (its policy's max_time_to_answer_seconds)
    EXPIRES = "expires_ms"  # the answer is worth nothing after this; later if its queue is paused meanwhile
    STOPPED = "stopped_ms"  # how long its queue had been paused in all when the job was accepted
    TENANT_STOPPED = "tenant_stopped_ms"  # the same for its tenant
    IDEMPOTENCY = "idempotency"  # key of its idempotency record, if the caller gave a key
    SUBMISSION = "submission"  # else: hash of user id, job id and input, to recognise the resend of its submission
    SIZE = "size"  # bytes of its `data` before they were compressed
    LEASE = "lease"  # id of the execution that holds the job now
    SETTLED = "settled"  # id of the execution that was settled last, to recognise the resend of a settle
    EXECUTIONS = "executions"  # executions that failed
    CRASHES = "crashes"  # executions whose worker vanished
    SUSPECT = "suspect"  # the latest of them in a row: the job may be what kills workers, so few suspects run at a time
    CHARGED = "charged"  # of these, while it ran alone among suspects: at three it is a dead letter
    BEGUN = "begun"  # {execution}:alone | {execution}:together, once a suspect runs
    REAPED = "reaped"  # id of the execution whose worker vanished last
    ATTEMPTS = "attempts"  # HTTP calls to providers so far
    RUN_MS = "run_ms"  # time worked in executions that ended
    TRAIL = "trail"  # JSON list of attempts so far
    WAITING = "waiting"  # retry | park | park in turn | delay, while scheduled
    WAITING_REASON = "waiting_reason"  # why, as producer/waiting.py names it
    WAITING_SUBJECTS = "waiting_subjects"  # what it waits for: `provider:openai tenant:acme`
    WAITING_FOR = "waiting_for"  # why, as text for people
    WAITING_UNTIL = "waiting_until_ms"
    DEAD_REASON = "dead_reason"
    DEAD_DETAIL = "dead_detail"
    DEAD_ROUTE = "dead_route"  # the last one tried
    DIED = "died_ms"  # when it became a dead letter last; stays after a requeue
    TENANT = "tenant"
    FEATURE = "feature"  # if it has one, until the job is done
    TYPE = "job_type"
    GENERATION = "generation"  # how often it was requeued from the dead letters
    REQUEUED_BY = "requeued_by"  # token of the call that requeued it
    REQUEUED_WHO = "requeued_who"
    REQUEUED = "requeued_ms"
