"""failover-worker's public API: what a web app or a script needs to submit LLM jobs and read their results."""

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
