"""Jobs over HTTP: a client gets 202 and a job id, also while a provider would answer with an error.

`jobs(...)` is a router for the web process, or for your own FastAPI app, which also needs `install_errors`.
"""

from producer.intake.caller import HTTP, Caller, caller_of
from producer.intake.errors import ErrorBody, errors, install_errors, told_error
from producer.intake.openapi import COMPONENTS, request_body
from producer.intake.reading import body, read_json, read_object, turn
from producer.intake.routes import Accepted, Intake, jobs

__all__ = [
    "COMPONENTS",
    "HTTP",
    "Accepted",
    "Caller",
    "ErrorBody",
    "Intake",
    "body",
    "caller_of",
    "errors",
    "install_errors",
    "jobs",
    "read_json",
    "read_object",
    "request_body",
    "told_error",
    "turn",
]
