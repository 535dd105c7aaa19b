"""OpenAI's own SDK, talking to a web process with a worker behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import openai

from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop

HELLO = [{"role": "user", "content": "hello"}]


@contextlib.contextmanager
def door(workshop: Workshop, worker: bool = True, token: str = TOKEN, **environment: str) -> Iterator[openai.OpenAI]:
    """A client of the SDK as an app makes it, with its default retries. With `worker`, one runs."""
    if worker:
        workshop.worker()
    with (
        served(workshop, **environment) as http,
        openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=token) as client,
    ):
        yield client


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "default", "messages": HELLO, **more})
