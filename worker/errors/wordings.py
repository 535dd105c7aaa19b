# ruff: noqa: E501 - a pattern is read best in one line
"""What providers say in prose, as data: families of wordings, searched in order; the first that is found decides.

Every pattern takes a time that grows with the text alone: no two unbounded gaps, and the text is cut before
(error_body.py). `quota` in the prose of a 429 is an ordinary rate limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from worker.errors.catalog import (
    BAD_KEY,
    BILLING,
    CONTEXT,
    FILTERED,
    NO_MODEL,
    OVERLOADED,
    PREFILL,
    QUOTA,
    ROUTE_COOLDOWN,
    TOO_DEAR,
    TOO_LARGE,
    UNABLE_TO,
    Action,
    Breaker,
    Failure,
)


@dataclass(frozen=True)
class Family:
    """`name`: as docs/failures.md lists it. `not_in`: statuses in which the words mean nothing special."""

    name: str
    pattern: re.Pattern[str]
    failure: Failure
    not_in: frozenset[int] = frozenset()


FORBIDDEN_HERE = Failure("forbidden", Action.FAILOVER, Breaker.NEUTRAL, cooldown=ROUTE_COOLDOWN)
_RATE = frozenset({429})


def _family(name: str, failure: Failure, *patterns: str, not_in: frozenset[int] = frozenset()) -> Family:
    return Family(name, re.compile("|".join(patterns), re.IGNORECASE), failure, not_in)


FAMILIES = (
    _family("usage limit of an organization", QUOTA, r"reached your specified API usage limits"),
    _family("credit too small for this job", TOO_DEAR, r"can only afford [1-9]"),
    _family(
        "bill unpaid, account suspended",
        BILLING,
        r"credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds)|exceeded its monthly spending cap",
        r"prepa(?:id|yment)[^.]{0,80} (?:depleted|exhausted)|requires more credits|out of credits?|no credits? (?:left|remaining)",
        r"(?:account|organization|billing|subscription)[^.]{0,60} (?:is|has been|was) (?:suspended|deactivated|disabled|blocked)",
        r"account is in good standing|in arrears|overdue|payment (?:is )?required|failure to pay|unpaid (?:invoice|bill)",
        r"billing (?:is )?(?:not active|disabled|not enabled|hard limit)|add (?:a payment|more credits)|top up|recharge",
    ),
    _family(
        "quota spent",
        QUOTA,
        r"quota (?:is |has been |was )?(?:exceeded|exhausted|used up)|exceeded (?:your|the|its) [^.]{0,40}quota",
        r"(?:monthly|daily|free|spend(?:ing)?|usage) (?:token )?(?:limit|budget|allowance) (?:is |has been |was )?(?:exceeded|reached)",
        r"budget (?:has been |is )?exceeded|exceeded (?:your|the) [^.]{0,30}budget",
        not_in=_RATE,
    ),
    _family(
        "key refused",
        BAD_KEY,
        r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|revoked|disabled|missing|not found)",
        r"(?:invalid|incorrect|expired|revoked|missing|no) (?:api[ _-]?key|authentication|auth token|access token|credentials)",
        r"authentication fail|invalid x-api-key|token (?:is )?expired|unauthorized",
        not_in=_RATE,
    ),
    _family(
        "context too long",
        CONTEXT,
        r"context[ _-]?(?:length|window|size|limit)|(?:prompt|input|request|message)s? (?:is|are|was) too long|too many (?:input )?tokens",
        r"exceeds? (?:the )?(?:maximum|max|limit)[^.]{0,40} tokens|too large for model with \d+ maximum context|max_model_len",
        r"reduce (?:the|your) (?:length|size|number)[^.]{0,20} of (?:the |your )?(?:messages|prompt|input|tokens)",
        r"range of input length|(?:maximum|max) (?:input|prompt|sequence) (?:length|tokens|size)|input length[^.]{0,60} exceed",
        r"(?:prompt|input)[^.]{0,40} (?:exceeds?|longer than)|max_new_tokens. must be|token (?:limit|count)[^.]{0,20} exceed",
        not_in=_RATE,
    ),
    _family("request too large", TOO_LARGE, r"request too large for", r"(?:payload|body|entity) (?:is )?too large"),
    _family(
        "prefill refused",
        PREFILL,
        r"prefill|expected last role|(?:conversation|last message) must (?:end with|be) (?:a |from the )?user",
        not_in=_RATE,
    ),
    _family(
        "conversation of another provider",
        UNABLE_TO,
        r"thought_?signature|signature(?: field)? (?:is )?(?:required|invalid|missing)|tool.?call.?ids?\b[^.]{0,80}(?:must|length|format|match|found)",
        r"unexpected role|unknown variant|invalid role|roles? must alternate|unsupported role|is not one of \['?system",
        r"reasoning_content|thinking blocks?|(?:tool|function)[^.]{0,40} must (?:be followed|follow|precede|be a response)",
        r"must (?:be followed by|be a response to|have a corresponding) [^.]{0,40}tool",
        not_in=_RATE,
    ),
    _family(
        "content filter",
        FILTERED,
        r"your (?:input|prompt|request) was (?:flagged|blocked)|content (?:management|usage)? ?policy|flagged as potentially violating",
        r"flagged (?:by|for|as)|safety system|inappropriate content|content[ _-]?filter|(?:violat\w{1,5}|against) [^.]{0,30}(?:usage )?polic(?:y|ies)",
    ),
    _family(
        "region",
        FORBIDDEN_HERE,
        r"user location is not supported",
        not_in=_RATE,
    ),
    _family(
        "cannot do this",
        UNABLE_TO,
        r"(?:does not|doesn't|do not|cannot|can't) (?:support|accept|process|handle|take) (?:an? |the |any )?"
        r"(?:image|vision|audio|video|file|pdf|tool|function|response.?format|json|structured|system|stream)",
        r"no endpoints found that support|maximum allowed number of output tokens|supports at most \d+ completion tokens",
        r"(?:image|vision|audio|tool use|tool calls?|function calling)[^.]{0,30} (?:is|are) not (?:supported|enabled|available)",
        r"not a chat model|only supports? (?:text|completions)",
        not_in=_RATE,
    ),
    _family(
        "model unavailable",
        NO_MODEL,
        r"\bmodel\b.{0,80} (?:is|has been|was) (?:deprecated|decommissioned|retired|removed|disabled|shut down|sunset)",
        r"is not found for API version|no such (?:model|deployment)|model .{0,80} does not exist|model .{0,80} not (?:found|available)",
        r"not a valid model|^invalid model|model not exist|unknown model|no (?:healthy|available) (?:deployment|upstream|channel|server|worker)",
        r"degraded function|(?:do(?:es)? not|don't) have access to (?:the |this )?model|model .{0,60} (?:is )?(?:currently )?(?:unavailable|loading)",
        r"unsupported model|(?:not supported|no longer (?:available|supported)) (?:model|in this region)",
        not_in=_RATE,
    ),
    _family(
        "overloaded",
        OVERLOADED,
        r"\boverloaded\b|server is busy|currently busy|at capacity|capacity exceeded",
        not_in=_RATE,
    ),
)

# How providers name a parameter that they do not know; the group is its name, in any casing.
UNKNOWN_PARAMETER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"unsupported (?:parameter|value|argument|field)s?:? ['\"`]?([\w.]+)",
        r"(?:unknown|unrecognized|unexpected|invalid) (?:parameter|name|field|key|argument|keyword argument|request argument supplied)"
        r"s?(?: supplied)?[: ]{1,4}['\"`]?([\w.]+)",
        r"(?:argument|parameter|field|property|option|param)s? (?:is |are )?not (?:supported|allowed|permitted|recognized)[^:.]{0,40}: ?['\"`]?([\w.]+)",
        r"(?:argument|parameter|field|property|option|param) ['\"`]?([\w.]+)['\"`]? (?:is |are )?(?:not|un)",
        r"property ['\"`]([\w.]+)['\"`] is (?:unsupported|not supported)",
        r"(?<![\w.])([\w.]+): Extra inputs are not permitted",
        r"additional properties are not allowed \(['\"`]([\w.]+)",
        r"['\"`]([\w.]+)['\"`] (?:is|are) (?:not (?:supported|allowed|permitted)|deprecated|unsupported)",
        r"(?:does not|doesn't) support (?:the )?(?:parameter |argument )?['\"`]([\w.]+)['\"`]",
        r"\w['\"`]? and ['\"`]?(\w+)['\"`]? (?:cannot|can't|may not|must not) (?:both )?be",
        r"(?<![\w.])([a-z]\w+) (?:is|are) not (?:supported|allowed|permitted) (?:with|by|for|on|in)",
    )
)
INSTEAD = re.compile(r"use ['\"`](\w+)['\"`] instead", re.IGNORECASE)

# A field of the job that an error blames: quoted, or as a path.
NAMED_FIELD = re.compile(
    r"['\"`](\w+)(?:[.\[][^'\"`]{0,80})?['\"`]|(?<![\w.])(\w+)(?:\[\d{1,9}\]|\.\d{1,9}\b)|^(\w+): "
)
