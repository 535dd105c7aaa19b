"""The delivery of one part of an incident (opening, story, digest, closing) to one channel, as the incident's hash
holds it."""

from __future__ import annotations

from dataclasses import dataclass

from worker.notify.incidents import Incident, number

SENDING, SENT, UNKNOWN, AMBIGUOUS, REFUSED = "sending", "sent", "unknown", "ambiguous", "refused"
REPEAT = "repeat"  # to be sent once more, because people may have nothing of this incident


@dataclass
class DeliveryState:
    """Delivery of one part to one channel; stored as `state at_ms detail`. `at_ms`: Unix time. `detail`: the channel's
    ref of a sent part; before that, for a part of the story, the number of the story's lines up to its end, and `repeat` for
    a part that is sent for the second time."""

    state: str
    at_ms: int
    detail: str

    @classmethod
    def of(cls, incident: Incident, channel: str, part: str) -> DeliveryState:
        """The state in the incident's hash; `state` is "" before the first try."""
        state, at, detail = (incident.fields.get(f"{channel}:{part}", "") + "  ").split(" ")[:3]
        return cls(state, number(at), detail)

    def __str__(self) -> str:
        return f"{self.state} {self.at_ms} {self.detail}".rstrip() if self.state else ""

    @property
    def repeats(self) -> bool:
        """Whether it may have arrived before."""
        return REPEAT in (self.state, self.detail)

    def untried(self) -> DeliveryState:
        """The state for another try after one that certainly did not arrive."""
        return DeliveryState(REPEAT if self.repeats else "", 0, "")

    @property
    def over(self) -> bool:
        """Whether no further try will be made."""
        return self.state in (SENT, AMBIGUOUS, REFUSED)

    @property
    def open(self) -> bool:
        """Whether it is being sent, or may have arrived."""
        return self.state in (SENDING, UNKNOWN)
