"""failover-worker's public API: what a web app or a script needs to submit LLM jobs and read their results.

A name is imported when it is first asked for: a command that asks for none of them starts without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import AsyncProducer, Producer
    from producer.errors import (
        ConfigurationError,
        FailoverError,
        IdempotencyConflict,
        InvalidJob,
        ServiceUnavailable,
        UnknownJob,
        UsageError,
    )
    from producer.exchange import Receipt
    from producer.job import JobResult, JobStatus, LLMJob

_MODULES = {
    "producer.client": ("AsyncProducer", "Producer"),
    "producer.errors": (
        "ConfigurationError",
        "FailoverError",
        "IdempotencyConflict",
        "InvalidJob",
        "ServiceUnavailable",
        "UnknownJob",
        "UsageError",
    ),
    "producer.exchange": ("Receipt",),
    "producer.job": ("JobResult", "JobStatus", "LLMJob"),
}
__all__ = [
    "AsyncProducer",
    "ConfigurationError",
    "FailoverError",
    "IdempotencyConflict",
    "InvalidJob",
    "JobResult",
    "JobStatus",
    "LLMJob",
    "Producer",
    "Receipt",
    "ServiceUnavailable",
    "UnknownJob",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"producer has no {name!r}")
    globals()[name] = found = getattr(import_module(module), name)
    return found
