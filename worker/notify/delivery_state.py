"""How a part of an incident (its opening, a piece of its story, its end) stands with a channel, as the hash holds it."""

from __future__ import annotations

from dataclasses import dataclass

from worker.notify.incidents import Incident, number

SENDING, SENT, UNKNOWN, AMBIGUOUS, REFUSED = "sending", "sent", "unknown", "ambiguous", "refused"


@dataclass
class DeliveryState:
    """How a part of an incident stands with a channel: `state at_ms detail`. `detail`: its ref once it is sent; of a part
    of the story before that, how many of its lines the post holds."""

    state: str
    at_ms: int
    detail: str

    @classmethod
    def of(cls, incident: Incident, channel: str, part: str) -> DeliveryState:
        state, at, detail = (incident.fields.get(f"{channel}:{part}", "") + "  ").split(" ")[:3]
        return cls(state, number(at), detail)

    def __str__(self) -> str:
        return f"{self.state} {self.at_ms} {self.detail}".rstrip() if self.state else ""

    @property
    def over(self) -> bool:
        """Whether nothing more can be done for it."""
        return self.state in (SENT, AMBIGUOUS, REFUSED)

    @property
    def open(self) -> bool:
        """Whether it may have left."""
        return self.state in (SENDING, UNKNOWN)
