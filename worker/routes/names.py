"""The canonical names of providers, which have aliases."""

from __future__ import annotations

_ALIASES = {"gemini": "google", "vertex": "google", "claude": "anthropic"}


def canonical(provider: str) -> str:
    """The canonical name of a provider: budgets may say `gemini` where routes say `google`."""
    name = provider.strip().lower()
    return _ALIASES.get(name, name)
