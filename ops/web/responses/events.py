"""A response as the events of a stream. The same response has the same events with the same numbers whenever they are made, so
that a reader can come back with `starting_after`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.web.openai.chunks import PIECE
from ops.web.responses.made import message_item, text_of, text_part


class Events:
    """The events of one response. `job_id`: its job's."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self.number = 0  # of the next event
        self._text_at: int | None = None  # the output index of the message whose text comes
        self.text = ""

    def begin(self, response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield self._event("response.created", response={**response, "status": "in_progress", "output": []})
        yield self._event("response.in_progress", response={**response, "status": "in_progress", "output": []})

    def more(self, text: str, at: int = 0) -> Iterator[dict[str, Any]]:
        """More text of the message, which is the output item `at`."""
        here = {"item_id": f"msg_{self._job_id}", "output_index": at, "content_index": 0}
        if self._text_at is None:
            self._text_at = at
            item = message_item(self._job_id, "", status="in_progress")
            yield self._event("response.output_item.added", output_index=at, item=item)
            yield self._event("response.content_part.added", **here, part=text_part(""))
        self.text += text
        yield self._event("response.output_text.delta", **here, delta=text, logprobs=[])

    def end(self, response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What is left of the output, and the end."""
        for at, item in enumerate(response["output"]):
            yield from self._whole(at, item)
        yield self._event(f"response.{response['status']}", response=response)

    def failed(self, response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield self._event("response.failed", response={**response, "status": "failed"})

    def _whole(self, at: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if item["type"] == "message" and item["content"] and item["content"][0]["type"] == "output_text":
            yield from self._text(at, item)
            return
        unfinished = {**item, "status": "in_progress"} if "status" in item else dict(item)
        if item["type"] == "function_call":
            yield self._event("response.output_item.added", output_index=at, item={**unfinished, "arguments": ""})
            here = {"item_id": item["id"], "output_index": at}
            yield self._event("response.function_call_arguments.delta", **here, delta=item["arguments"])
            named = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **here, **named)
        else:
            yield self._event("response.output_item.added", output_index=at, item=unfinished)
        yield self._event("response.output_item.done", output_index=at, item=item)

    def _text(self, at: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        text = item["content"][0]["text"]
        rest = text[len(self.text) :]
        for begin in range(0, max(len(rest), 0 if self._text_at is not None else 1), PIECE):
            yield from self.more(rest[begin : begin + PIECE], at)
        here = {"item_id": item["id"], "output_index": at, "content_index": 0}
        yield self._event("response.output_text.done", **here, text=text, logprobs=[])
        yield self._event("response.content_part.done", **here, part=text_part(text))
        yield self._event("response.output_item.done", output_index=at, item=item)

    def _event(self, kind: str, **facts: Any) -> dict[str, Any]:
        self.number += 1
        return {"type": kind, "sequence_number": self.number - 1, **facts}


def begins(completion: Mapping[str, Any] | None, text: str) -> bool:
    """Whether the answer begins with the text that readers have; none at all begins every answer."""
    choices = (completion or {}).get("choices") or [{}]
    return text_of(choices[0].get("message") or {}).startswith(text)
