"""What a reader of a live answer gets to see of it."""

from __future__ import annotations

from worker.providers.live_reader import LiveReader

KEY, OTHER = "sk-sk-secret-0123", "sk-sk-secret-4567-long"


def read(pieces: list[str], *secrets: str) -> list[str]:
    sent: list[str] = []
    reader = LiveReader(sent.append, secrets)
    for count in range(1, len(pieces) + 1):
        reader.follow(pieces[:count])
    return sent


def test_a_key_that_comes_in_parts_is_never_sent() -> None:
    whole = f"it is {KEY} and {OTHER}, sk-sk-sk-secret-0123."
    wanted = "it is [key] and [key], sk-[key]."
    for size in range(1, len(whole) + 1):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert "".join(read(pieces, KEY, OTHER)) == wanted, size


def test_what_only_looked_like_a_key_is_sent_when_more_has_come() -> None:
    assert read(["ask-", "sk-", "sk-secret-", "ary"], KEY) == ["a", "sk-", "sk-sk-secret-ary"]
    assert read(["ask me"], "sk me", "test") == ["ask me"]  # no key is that short


def test_a_character_is_sent_whole() -> None:
    assert read(["a\ud83d", "\ude00 b", "\ud83d", "c"], KEY) == ["a", "\U0001f600 b", "\ufffdc"]
