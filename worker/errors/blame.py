# ruff: noqa: E501 - a pattern is read best in one line
"""What an error blames: a parameter that the route does not take, or a field of the job itself, as providers write it.

Patterns take a time that grows with the text alone, as those in wordings.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from worker.errors.catalog import DROPPABLE, JOB_FIELDS, NO_MODEL, PARAMETER, RENAMES, UNKNOWN_PARAMETERS, Failure
from worker.errors.codes import CODES
from worker.errors.error_body import ErrorBody
from worker.errors.wordings import OF_THE_JOB, OF_THE_PROMPT

# How providers name a parameter that they do not know; the group is its name, in any casing.
UNKNOWN_PARAMETER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"unsupported (?:parameter|argument|field)s?(?:\(s\))?:? ['\"`]?([\w.]+)",
        r"unrecognized request arguments? supplied: (\w+)",
        r"support (?:the )?(?:parameter|argument|param)s?:? [\['\"`]{0,2}([\w.]+)",
        r"\bloc': ?[(\[]'body', '(\w+)'[)\]], 'msg': 'extra",
        r"body -> (\w+)\s{1,3}extra (?:inputs|fields)",
        r"not permitted, field: '([\w.]+)'",
        r"extraneous key \[(\w+)\]",
        r"support the (\w{1,40}) parameter",
        r"['\"`](\w{1,40})['\"`] and ['\"`]\w{1,40}['\"`] at the same time",
        r"`(\w+)` specified in the request",
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
# The same, of a parameter whose value does not fit this model, or does not fit beside another one.
UNFIT_PARAMETER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"unsupported value:? ['\"`]?(\w+)",
        r"\binvalid (\w{1,40}): only [\w.]{1,20} is allowed",
        r"(?:don't|doesn't|does not) support (\w+)=",
        r"['\"`](\w+)['\"`](?: parameter)? (?:may only|must be|is immutable|is only allowed|cannot be|should be)",
        r"(?<![\w.])(\w{1,40})=\w{1,20} is not supported",
        r"(?<![\w.])(\w+) may only be set to",
        r"(?:invalid value|unsupported value)[^.]{0,10} (?:for|of|in) ['\"`]?(\w+)",
        r"invalid ['\"`](\w{1,40})['\"`]: string too long",
    )
)
INSTEAD = re.compile(r"use ['\"`](\w+)['\"`] instead", re.IGNORECASE)

# A field of the job that an error blames: quoted, or as a path.
NAMED_FIELD = re.compile(
    r"['\"`](\w+(?:[.\[][^'\"`]{0,80})?)['\"`]|(?<![\w.])(\w+(?:\[\d{1,9}\]|\.\d{1,9}\b))|^(\w+(?:\.[\w.]{1,80})?): "
)
WRONG_TYPE = re.compile(
    r"invalid (?:type|value) for|(?:got|found|received) (?:an? )?(?:integer|int|number|float|boolean|bool)\b|field required|is required|missing required"
    r"|invalid value: '(?!developer|system|tool|function|model)\w",
    re.IGNORECASE,
)
REQUIRED = re.compile(r"required|missing", re.IGNORECASE)
_WRONG = r"invalid type for|must not be empty|(?:got|found|received) (?:an? )?(?:string|integer|int|number|float|boolean|bool)\b"
WRONG_EVERYWHERE = re.compile(_WRONG, re.IGNORECASE)
HOLDS_EVERYWHERE = re.compile(
    r"field required|missing (?:required|field|\d{1,3} required)|is (?:a )?required|required (?:property|parameter|field)"
    r"|at least (?:one|1) (?:message|item)|messages[^.]{0,30}(?:empty|too short)|too short - 'messages"
    rf"|{_WRONG}",
    re.IGNORECASE,
)

# Places inside the conversation where a value of the wrong type is wrong everywhere.
_SHALLOW = re.compile(
    r"(?:messages[.\[]\d+\]?\.(?:role|content)|(?:tools|functions)[.\[]\d+\]?\.(?:function|type|name))$"
)
_OF_A_TOOL = re.compile(r"(?:tool|function) ['\"`]?$", re.IGNORECASE)
_AT_A_PLACE = re.compile(r"['\"`]? (?:at '|role)")
OF_MESSAGES = "messages."  # before a field of a message, where it is the parameter
_IN_MESSAGES = re.compile(r"messages[.\[]\d{1,6}\]?\.(?:(?:user|assistant|system|tool)\.)?(\w{1,60})(?!\w|\[|\.)")
_PROPERTY = re.compile(r"property ['\"`](\w{1,60})['\"`] is (?:unsupported|not supported)")
_UNKNOWN = re.compile(
    r"not permitted|unsupported|not supported|unknown|unexpected|unrecognized|extra_forbidden|not allowed",
    re.IGNORECASE,
)
_CONVERSATION = frozenset({"messages", "tools", "functions", "response_format", "tool_choice"})
_OF_ONE_PROVIDER = re.compile(r"\bjson\b|tool_use|tools. field", re.IGNORECASE)  # what only some want of a conversation
_SIZED = frozenset({"messages", "prompt", "input", "max_tokens", "max_completion_tokens"})  # what can be too much
_INVALID_SCHEMA = re.compile(r"invalid schema for", re.IGNORECASE)
_FOREIGN = frozenset(
    {"top_k", "min_p", "repetition_penalty", "thinking", "enable_thinking", "reasoning"}
)  # of other dialects
_MAY_GO = DROPPABLE | _FOREIGN | {"tool_choice", "model"}
_ALIASES = {"effort": "reasoning_effort", "output_config": "reasoning_effort", "thinking_level": "reasoning_effort"}
_COMMON_WORDS = frozenset({"user", "model", "stop", "stream", "store", "audio", "n", "metadata"})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def blames_the_job(error: ErrorBody) -> bool:
    """Whether a field of the job is named as the fault: words of the job may stand in such an error."""
    return _INVALID_SCHEMA.match(error.words) is not None or any(_field(param) in JOB_FIELDS for param in error.params)


def may_mean(error: ErrorBody) -> Sequence[Failure]:
    """What an error can still mean that blames a field of the job: nothing of its account, its key, or a limit."""
    prompt = any(_field(param) in _SIZED for param in error.params)
    return OF_THE_PROMPT if prompt and not _INVALID_SCHEMA.match(error.words) else OF_THE_JOB


def unfit_parameter(error: ErrorBody) -> Failure | None:
    """The parameter that the route does not take: by its name, or with this value. One that the job can do without is dropped
    where the error names it, unless the words say that every provider would refuse it."""
    if field := _unknown_field_of_messages(error):
        return replace(PARAMETER, parameter=f"{OF_MESSAGES}{field}", unknown=True)
    unknown = any(name in UNKNOWN_PARAMETERS for name in error.names)
    blamed = [_field(param) for param in error.params]
    named = next(
        (name for name in blamed if unknown or any(CODES.get(name) is PARAMETER for name in error.names)), None
    )
    if named is None and not HOLDS_EVERYWHERE.search(error.words):
        droppable = (
            name for name, path in zip(blamed, error.params, strict=True) if name in DROPPABLE and "[" not in path
        )
        named = next(droppable, None)
    if named is None:
        named, unknown = _unknown_in(error.words, UNKNOWN_PARAMETER), True
    if named is None:
        unfit = _unknown_in(error.words, UNFIT_PARAMETER)
        named, unknown = unfit if unfit in _MAY_GO else None, False
    if not named:
        return None
    if named == "model":
        return NO_MODEL
    better = INSTEAD.search(error.words)
    instead = better[1] if better else RENAMES.get(named, "") if unknown else ""
    return replace(PARAMETER, parameter=named, instead=instead, unknown=unknown or bool(better))


def _unknown_field_of_messages(error: ErrorBody) -> str | None:
    """A field of the messages that the route does not know; a message can do without it."""
    if not _UNKNOWN.search(f"{error.words} {' '.join(error.names)}"):
        return None
    found = (match[1] for place in (*error.params, error.words) for match in _IN_MESSAGES.finditer(place))
    named = next(found, None)
    if named is None and "messages" in error.words and (match := _PROPERTY.search(error.words)):
        named = match[1]
    return named if named not in (None, "role", "content", "tool_calls", "tool_call_id") else None


def _unknown_in(words: str, patterns: Sequence[re.Pattern[str]]) -> str | None:
    found = (match for pattern in patterns for match in pattern.finditer(words))
    names = (_ALIASES.get(name := _field(match[1]), name) for match in found if not _is_elsewhere(match, words))
    return next((name for name in names if name in JOB_FIELDS | _FOREIGN), None)


def _is_elsewhere(match: re.Match[str], words: str) -> bool:
    """Whether it is the name of a tool, of a schema's property, or a role."""
    before, after = words[max(0, match.start() - 10) : match.start(1)], words[match.end() : match.end() + 12]
    return bool(_OF_A_TOOL.search(before) or _AT_A_PLACE.match(after))


def _field(named: str) -> str:
    """The top-level field of a path, in the casing of chat completions: `presence_penalty` of `presencePenalty`."""
    root = re.split(r"[.\[]", named.removeprefix("body."), maxsplit=1)[0]
    return _HUMP.sub("_", root).lower() if not root.isupper() else root.lower()


def names_a_field(error: ErrorBody) -> bool:
    """Whether the error blames a field of the job in a way that holds everywhere: the field itself, or a value of a type that
    no provider takes. A place deep inside it is mostly a rule of one provider."""
    if error.params:
        return any(_holds_everywhere(param, error.words) for param in error.params)
    found = (next(filter(None, match.groups())) for match in NAMED_FIELD.finditer(error.words))
    return any(_field(path) not in _COMMON_WORDS and _holds_everywhere(path, error.words) for path in found)


def _holds_everywhere(path: str, words: str) -> bool:
    field = _field(path)
    if field not in JOB_FIELDS:
        return False
    is_deep = path != re.split(r"[.\[]", path, maxsplit=1)[0]
    if path == "messages" and not _OF_ONE_PROVIDER.search(words):
        return True
    if not (is_deep and field in _CONVERSATION):
        return WRONG_EVERYWHERE.search(words) is not None  # what one provider requires is optional elsewhere
    missing_content = path.endswith("content") and REQUIRED.search(words)  # beside calls it may be missing
    return bool(_SHALLOW.match(path) and WRONG_TYPE.search(words) and not missing_content)
