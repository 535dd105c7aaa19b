"""Who sends a request: its name in the audit, and the only tenant whose jobs it may touch."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

HTTP = "http"


@dataclass(frozen=True)
class Caller:
    """Who sends a request. `who`: its name in the audit. `tenant`: the only tenant whose jobs it may submit, see and cancel;
    None: every tenant's.

    Authentication puts it into `request.state.caller`; without one, a request may act for everybody.
    """

    who: str = HTTP
    tenant: str | None = None


def caller_of(request: Request) -> Caller:
    caller: Caller = getattr(request.state, "caller", Caller())
    return caller
