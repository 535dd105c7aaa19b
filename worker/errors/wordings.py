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
    FORBIDDEN_HERE,
    NO_MODEL,
    OVER_TOKEN_LIMIT,
    OVERLOADED,
    PREFILL,
    QUOTA,
    RATE_LIMITED,
    TOO_DEAR,
    TOO_LARGE,
    UNABLE_TO,
    Failure,
)


@dataclass(frozen=True)
class Family:
    """`name`: as docs/failures.md lists it. `not_in`: statuses in which the words mean nothing special."""

    name: str
    pattern: re.Pattern[str]
    failure: Failure
    not_in: frozenset[int] = frozenset()


_RATE = frozenset({429})


def _family(name: str, failure: Failure, *patterns: str, not_in: frozenset[int] = frozenset()) -> Family:
    return Family(name, re.compile("|".join(patterns), re.IGNORECASE), failure, not_in)


FAMILIES = (
    _family("usage limit of an organization", QUOTA, r"reached your specified (?:workspace )?API usage limits"),
    _family(
        "credit too small for this job", TOO_DEAR, r"can only afford [1-9]|prompt tokens limit exceeded: \d+ > [1-9]"
    ),
    _family(
        "bill unpaid, account suspended",
        BILLING,
        r"credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds)|exceeded its monthly spending cap",
        r"prepa(?:id|yment)[^.]{0,80} (?:depleted|exhausted)|requires more credits|out of credits?|no credits? (?:left|remaining)",
        r"(?<!for your )(?:account|organization|billing|subscription)\b[^.:]{0,30} (?:is|has been|was) (?:suspended|deactivated|disabled|blocked)",
        r"account is in good standing|in arrears|(?:payment|account|invoice|bill)\w{0,3}\b[^.]{0,30}overdue|failure to pay|unpaid (?:invoice|bill)",
        r"billing (?:is )?(?:not active|disabled|not enabled|hard limit)|valid credit card",
        r"(?:used|spent) all (?:of )?(?:your |the )?(?:available |included )?credits|have any credits|monthly included credits",
        r"balance (?:is|of) (?:insufficient|not enough|\$0)|not enough balance|out of extra usage|reached its monthly spending limit",
        r"余额不足|欠费|额度(?:不足|失败|已用尽|已用完)|资源包.{0,12}用尽|user quota is not enough",
    ),
    _family(  # in a 429 they sell a larger limit
        "pay more",
        BILLING,
        r"add (?:a payment|more credits)|payment (?:is )?required|\btop up\b|\brecharge\b",
        not_in=_RATE,
    ),
    _family(
        "limit of days or weeks reached",
        QUOTA,
        r"(?:weekly|monthly|daily|session|hourly|\d-?hour) usage limit|reached your .{0,20}usage limit",
        r"out of call volume quota|api calls / month|daily free allocation|daily request limit reached|hit your usage limit",
        r"reached (?:its|your|the) spend limit|subscription quota exceeded|exceeded your monthly limit|quota limit for this api key",
        r"您的限额将在|使用上限",
    ),
    _family(
        "quota spent",
        QUOTA,
        r"quota (?:is |has been |was )?(?:exceeded|exhausted|used up)|exceeded (?:your|the|its) [^.]{0,40}quota",
        r"(?:monthly|daily|free|spend(?:ing)?|usage) (?:token )?(?:limit|budget|allowance) (?:is |has been |was )?(?:exceeded|reached)",
        r"(?<!thinking )(?<!token )budget (?:has been |is )?exceeded|exceeded (?:your|the) [^.]{0,30}budget|\w over budget\. spend",
        not_in=_RATE,
    ),
    _family(
        "key refused",
        BAD_KEY,
        r"api[ _-]?key (?:is )?(?:not valid|invalid|expired|revoked|disabled|missing|not found)",
        r"(?:invalid|incorrect|expired|revoked|missing|no) (?:api[ _-]?key|authentication|auth token|access token|credentials)",
        r"authentication fail|invalid x-api-key|token (?:is )?expired|^unauthorized$|^invalid token|无效的令牌",
        r"(?:security|bearer) token[^.]{0,40} (?:invalid|expired)",
        not_in=_RATE,
    ),
    _family(
        "more tokens than a minute's limit",
        OVER_TOKEN_LIMIT,
        r"request too large for[^:]{0,120}tokens per min",
    ),
    _family(
        "rate limited",
        RATE_LIMITED,
        r"rate limit(?:ed|s)? (?:was |is |has been )?(?:reached|exceeded|hit)|too many requests|request limit reached",
        r"total request limit|exceeded (?:the |your )?rate limit|并发数过高|访问量过大|负载已饱和|请求过于频繁|rate increased too quickly|due to rate limiting",
        not_in=_RATE,
    ),
    _family(
        "limit of output tokens too high",
        UNABLE_TO,
        r"(?<!plus )max_(?:completion_|output_)?tokens[`'\"]?:?(?: value)? (?:must be (?:less|at most|between)|is too large|above maximum|cannot exceed|should be)",
        r"maximum allowed number of output tokens|supports at most \d+ completion tokens|max_tokens[^.]{0,20}integer above maximum",
        not_in=_RATE,
    ),
    _family("image too large", UNABLE_TO, r"image exceeds|image dimensions exceed", not_in=_RATE),
    _family(
        "context too long",
        CONTEXT,
        r"(?<!['\"`])context[ _-]?(?:length|window|size|limit)|(?:prompt|input|request|message)s? (?:is|are|was) too long|too many (?:input )?tokens",
        r"exceeds? (?:the )?(?:maximum|max|limit)[^.]{0,40} tokens|too large for model with \d+ maximum context|max_model_len",
        r"reduce (?:the|your) (?:length|size|number)[^.]{0,20} of (?:the |your )?(?:messages|prompt|input|tokens)",
        r"range of input length|(?:maximum|max) (?:input|prompt|sequence) (?:length|tokens|size)|input length[^.]{0,60} exceed",
        r"max_seq_len|max_num_tokens|model token limit|token (?:count|length)[^.]{0,60} (?:only supports|exceed)|tokens too long|prompt 超长",
        r"must have less than \d+ tokens|input length plus|requested tokens[^.]{0,40} exceed|max tokens of \d+ exceeded|at least 1, got -\d",
        r"(?:prompt|input)[^.]{0,40} (?:exceeds?|longer than)|max_new_tokens.{0,2} must be|physical batch size|token (?:limit|count)[^.]{0,20} exceed",
        not_in=frozenset({401, 402, 403, 429}),
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
        r"first message must|text content blocks must|message content must be non-empty",
        r"must (?:be followed by|be a response to|have a corresponding) [^.]{0,40}tool",
        not_in=_RATE,
    ),
    _family(
        "content filter",
        FILTERED,
        r"your (?:input|prompt|message) was (?:flagged|blocked)|your request was (?:flagged|rejected)|content management policy",
        r"content (?:usage )?policy|flagged as potentially violating|safety system|inappropriate content|content[ _-]?filter",
        r"(?:prompt|input|content|message|request|output|response)s?\b[^.]{0,60}(?:flagged (?:by|for|as)|(?:violat\w{1,5}|against) (?!firewall|network|security|access|the network)[^.]{0,30}polic(?:y|ies))",
        r"violates? usage guidelines|content exists risk|considered high risk|content for safety reasons|safety measures|new_sensitive",
        r"guardrail[^.]{0,40}(?:interven|violat|denied|checks[^.]{0,30} failed)|(?:blocked|denied) by [^.]{0,30}guardrail",
        r"prompt blocked due to security|contain[^.]{0,30} sensitive|sensitive words detected|敏感|不安全",
        not_in=frozenset({401, 402, 404, 429}),
    ),
    _family(
        "region",
        FORBIDDEN_HERE,
        r"user location is not supported|not (?:available|supported) in your (?:country|region)|country, region, or territory not supported",
        not_in=_RATE,
    ),
    _family(
        "cannot do this",
        UNABLE_TO,
        r"(?:does not|doesn't|do not|cannot|can't) (?:support|accept|process|handle|take) (?:an? |the |any )?"
        r"(?:image|vision|audio|video|file|pdf|tool|function|response.?format|json|structured|system|stream)",
        r"no endpoints found that support|does not support thinking",
        r"(?:image|vision|audio|tool use|tool calls?|function calling)[^.]{0,30} (?:is|are) not (?:supported|enabled|available)",
        r"not a chat model|only supports? (?:text|completions)",
        not_in=_RATE,
    ),
    _family(
        "model unavailable",
        NO_MODEL,
        r"\bmodel\b:? ?(?:['\"`][^'\"`]{1,80}['\"`] |[\w./:@-]{1,80} )?(?:is|has been|was) (?:deprecated|decommissioned|retired|removed|disabled|shut down|sunset)",
        r"is not found for API version|no such (?:model|deployment)|model .{0,80} does not exist|model (?:['\"`]?[\w./:@-]{1,80}['\"`]? )?(?:is |was )?not (?:found|available)",
        r"not a valid model|^invalid model\b(?! arg)|model not exist|unknown model(?! (?:param|arg))|no (?:healthy|available) (?:deployment|upstream|channel|server|worker)",
        r"degraded function|(?:do(?:es)? not|don't) have access to (?:the |this )?model|model .{0,60} (?:is )?(?:currently )?(?:unavailable|loading)",
        r"model does not exist|not allowed to use publisher model|model is unloaded|model identifier is invalid|模型不存在|throughput isn.t supported",
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

# What an error can still mean that blames a field of the job: not its account, its key, or a limit.
OF_THE_JOB = (TOO_LARGE, PREFILL, UNABLE_TO)
OF_THE_PROMPT = (*OF_THE_JOB, CONTEXT, FILTERED)
