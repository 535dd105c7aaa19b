"""The table at the end of docs/failures.md, made from the catalog: `python -m tests.support.failure_table` writes it anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from worker.errors.catalog import STATUS, UNKNOWN_4XX, UNKNOWN_END, Action, Breaker, Failure, Scope
from worker.errors.codes import CODES, KINDS
from worker.errors.endings import BROKEN_CALL, CUT, FAILED_PARTS, GOOD, REFUSED_PARTS
from worker.errors.wordings import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "failures.md"
BEGIN, END = "<!-- made from the catalog: begin -->", "<!-- made from the catalog: end -->"
DOES = {
    Action.RETRY: "retries, then the next route",
    Action.FAILOVER: "the next route",
    Action.NEXT_KEY: "the next key, then the next route",
    Action.DROP: "one more call without the parameter, else the next route",
    Action.LARGER: "a route with a larger window, or a shorter context",
    Action.ELSEWHERE: "the next route; dead letter `rejected` when none could",
    Action.REJECT: "dead letter `rejected`",
    Action.REFUSE: "dead letter `refused`",
}


def table() -> str:
    """The four tables, as Markdown."""
    return "\n".join(
        (
            *_section("Every `finish_reason`", "word, in any casing", _endings()),
            *_section("Every status", "status", _statuses()),
            *_section("Every code and type, wherever it stands", "code, type or class", _names()),
            *_section("Every family of wordings", "family", _families()),
        )
    )


def _section(title: str, first: str, rows: Iterable[str]) -> Iterator[str]:
    yield from (
        f"### {title}",
        "",
        f"| {first} | code in the trail | what we do | breaker | cooldown |",
        "|---|---|---|---|---|",
    )
    yield from rows
    yield ""


def _row(signal: str, failure: Failure) -> str:
    breaker = "counts" if failure.breaker is Breaker.COUNT else "neutral"
    whose = " of the account" if failure.scope is Scope.ACCOUNT else ""
    cooldown = f"{failure.cooldown:g} s{whose}" if failure.cooldown else "as the provider says"
    return f"| {signal} | `{failure.code}` | {DOES[failure.action]} | {breaker} | {cooldown} |"


def _endings() -> Iterator[str]:
    yield f"| {_words(GOOD)} |  | an answer | success |  |"
    yield "| none, though the answer came whole |  | an answer, never cached, noted in the trail | success |  |"
    yield f"| {_words(CUT)} |  | an answer that is `truncated`, never cached | success |  |"
    yield _row(f"with {_words(BROKEN_CALL)} in it, whatever else", STATUS[502])
    yield _row(f"with {_words(REFUSED_PARTS)} in it", CODES["content_filter"])
    yield _row(f"with {_words(FAILED_PARTS)} in it", STATUS[502])
    yield _row("any other", UNKNOWN_END)


def _statuses() -> Iterator[str]:
    yield from (_row(str(status), failure) for status, failure in sorted(STATUS.items()))
    yield _row("any other 4xx", UNKNOWN_4XX)
    yield _row("any other 5xx", STATUS[500])


def _names() -> Iterator[str]:
    as_status = {name: STATUS[status] for name, status in KINDS.items() if status != 400}
    yield from (_row(_words(names), failure) for failure, names in _by_failure({**as_status, **CODES}))


def _by_failure(names: Mapping[str, Failure]) -> Iterator[tuple[Failure, list[str]]]:
    grouped: dict[Failure, list[str]] = {}
    for name, failure in names.items():
        grouped.setdefault(failure, []).append(name)
    yield from sorted(grouped.items(), key=lambda entry: entry[0].code)


def _families() -> Iterator[str]:
    for family in FAMILIES:
        not_in = f" (not in a {', '.join(map(str, sorted(family.not_in)))})" if family.not_in else ""
        yield _row(family.name + not_in, family.failure)


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in (words if isinstance(words, list | tuple) else sorted(words)))


def written() -> str:
    """What stands between the two marks of the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip("\n")


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(
        text[: text.index(BEGIN) + len(BEGIN)] + f"\n{table()}\n" + text[text.index(END) :], encoding="utf-8"
    )


if __name__ == "__main__":
    main()
