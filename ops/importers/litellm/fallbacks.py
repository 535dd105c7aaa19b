"""The fallbacks of a LiteLLM config in all their forms, and the chain of aliases that follows from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.importers.litellm.prefixes import prefixes
from ops.importers.litellm.report import Report

_SECTIONS = ("router_settings", "litellm_settings")
_KINDS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_DEFAULT = "default_fallbacks"
_ANY = "*"


@dataclass
class Fallbacks:
    """By kind and alias (`*`: all that have none of their own), in order."""

    by_kind: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})

    def chain(self, alias: str) -> list[str]:
        """The alias, then each that takes over from it, and from those in turn: nobody twice."""
        found: list[str] = []
        waiting = [alias]
        while waiting:
            if (name := waiting.pop(0)) not in found:
                found.append(name)
                waiting = [*self._after(name), *waiting]
        return found

    def refused(self, alias: str) -> bool:
        """Whether what the content filter of one provider refuses goes to another one."""
        return bool(self._of(alias, "content_policy_fallbacks"))

    def outgrown(self, alias: str) -> bool:
        """Whether what is too long for the alias goes to another one."""
        return bool(self._of(alias, "context_window_fallbacks"))

    def of_some_failures(self, alias: str) -> bool:
        """Whether others take over, but not for every failure."""
        return bool(self._after(alias)) and not self._of(alias, "fallbacks")

    def unknown(self, aliases: Collection[str]) -> Iterator[str]:
        """The names that stand for none of these aliases."""
        for kind, by_alias in self.by_kind.items():
            used = {_ANY, *(self._key(alias, kind) for alias in aliases)}
            for key, others in by_alias.items():
                yield from () if key in used else (key,)
                yield from (name for name in others if name not in aliases)

    def _after(self, alias: str) -> list[str]:
        return list(dict.fromkeys(name for kind in _KINDS for name in self._of(alias, kind)))

    def _of(self, alias: str, kind: str) -> Sequence[str]:
        key = self._key(alias, kind)
        return [] if key is None else self.by_kind[kind][key]

    def _key(self, alias: str, kind: str) -> str | None:
        """LiteLLM finds an alias by its name, then without its provider's prefix, then by `*`."""
        by_alias = self.by_kind[kind]
        bare = alias.partition("/")[2] if alias.partition("/")[0] in prefixes() else alias
        prefixed = (key for key in by_alias if key.partition("/")[2] == alias and key.partition("/")[0] in prefixes())
        return next((name for name in (alias, bare, *prefixed, _ANY) if name in by_alias), None)


def fallbacks_of(config: Mapping[str, Any], report: Report) -> Fallbacks:
    """Those of router_settings; of litellm_settings the kinds that router_settings has not."""
    found = Fallbacks()
    sections = {name: settings for name in _SECTIONS if isinstance(settings := config.get(name), dict)}
    for kind in (*_KINDS, _DEFAULT):
        having = [name for name, settings in sections.items() if settings.get(kind)]
        if not having:
            continue
        first, value = having[0], sections[having[0]][kind]
        if kind == _DEFAULT:
            _add(found.by_kind["fallbacks"], _ANY, value)
        else:
            _read(value, f"{first}.{kind}", found.by_kind[kind], report)
        for other in having[1:]:
            report.leave_out(f"{other}.{kind}", f"LiteLLM does not read it beside {first}.{kind}: put both there")
    for section, settings in config.items():
        misplaced = settings if section == "general_settings" and isinstance(settings, dict) else {section: settings}
        for kind in {*_KINDS, _DEFAULT} & misplaced.keys():
            fix = "LiteLLM does not read it there: move it to router_settings"
            report.leave_out(kind if misplaced is not settings else f"{section}.{kind}", fix)
    return found


def _read(value: Any, where: str, by_alias: dict[str, list[str]], report: Report) -> None:
    """A mapping, or a list of mappings of an alias to others; a lone name takes over from every alias."""
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(entry, dict):
            for alias, others in entry.items():
                _add(by_alias, str(alias), others)
        elif isinstance(entry, str):
            _add(by_alias, _ANY, entry)
        else:
            report.leave_out(where, f"{entry!r} is not a mapping of an alias to others: write `- alias: [other]`")


def _add(by_alias: dict[str, list[str]], alias: str, others: Any) -> None:
    kept = by_alias.setdefault(alias, [])
    for other in others if isinstance(others, list) else [] if others is None else [others]:
        name = str(other.get("model") if isinstance(other, dict) else other)
        if name not in (*kept, alias):
            kept.append(name)
