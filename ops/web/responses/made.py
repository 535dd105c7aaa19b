"""A job as OpenAI's response object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.web.openai.errors import ended_without_answer
from producer import answer_text
from producer.job import JobResult, JobStatus

_STATUS = {
    JobStatus.QUEUED: "queued",
    JobStatus.RETRYING: "queued",
    JobStatus.PARKED: "queued",
    JobStatus.RUNNING: "in_progress",
    JobStatus.DONE: "completed",
    JobStatus.DEAD: "failed",
    JobStatus.CANCELLED: "cancelled",
}
# Fields of the request that a response repeats, with what they are by default.
_ECHOED: Mapping[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


def response_of(response_id: str, asked: Mapping[str, Any], created_at: int, result: JobResult) -> dict[str, Any]:
    """The response. `asked`: the request's body. Its output is empty until the job is done."""
    echoed = {name: default if asked.get(name) is None else asked[name] for name, default in _ECHOED.items()}
    status = _STATUS[result.status]
    completion = result.completion if result.status is JobStatus.DONE else None
    finish = _choice(completion or {}).get("finish_reason")
    if status == "completed" and finish == "length":
        status = "incomplete"
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": status,
        "error": _error(result) if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": result.model or asked.get("model") or "default",
        "output": output_of(completion, result.job_id, live=asked.get("stream") == "live") if completion else [],
        "usage": _usage(completion) if completion else None,
        **echoed,
    }


def output_of(completion: Mapping[str, Any], job_id: str, *, live: bool = False) -> list[dict[str, Any]]:
    """The output items of a completion. `live`: its text was streamed first, so nothing stands before it."""
    message = _choice(completion).get("message") or {}
    items: list[dict[str, Any]] = []
    if (thought := message.get("reasoning_content")) and isinstance(thought, str) and not live:
        summary = [{"type": "summary_text", "text": thought}]
        items.append({"id": f"rs_{job_id}", "type": "reasoning", "summary": summary})
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if (text := text_of(message)) or message.get("refusal") or not calls:
        items.append(message_item(job_id, text, refusal=message.get("refusal") if not text else None))
    return [*items, *(_call_item(call, job_id, at) for at, call in enumerate(calls))]


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a chat message, also where it comes in parts."""
    content = message.get("content")
    return content if isinstance(content, str) else answer_text.text_in(content)


def message_item(job_id: str, text: str, refusal: Any = None, status: str = "completed") -> dict[str, Any]:
    content = {"type": "refusal", "refusal": str(refusal)} if refusal else text_part(text)
    parts = [content] if status == "completed" else []
    return {"id": f"msg_{job_id}", "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(call: Mapping[str, Any], job_id: str, at: int) -> dict[str, Any]:
    function = call.get("function") or {}
    return {
        "id": f"fc_{job_id}_{at}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.get("id") or f"call_{at}",
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "{}",
    }


def _choice(completion: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = completion.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _error(result: JobResult) -> dict[str, Any]:
    error = ended_without_answer(result)
    return {"code": "server_error" if error.status >= 500 else "invalid_prompt", "message": str(error)}


def _usage(completion: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = completion.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, out = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    read, thought = (usage.get(f"{name}_tokens_details") or {} for name in ("prompt", "completion"))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": read.get("cached_tokens") or 0,
            "cache_write_tokens": read.get("cache_write_tokens") or 0,
        },
        "output_tokens": out,
        "output_tokens_details": {"reasoning_tokens": thought.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or prompt + out,
    }
