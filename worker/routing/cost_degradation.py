"""What a job gives up so that it costs less: by its feature's caps on one job, and by cost saving near a month's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from producer.job import ChatBody, LLMJob
from producer.trail import RejectedFor
from worker.money.budget_state import BudgetState
from worker.money.caps import FeatureCap, Owner, micros_of
from worker.routes.route import Route
from worker.routes.tokens import estimated, longest_answer
from worker.routing.degrade import shorter_context, smaller_first
from worker.routing.plan import CostPolicy, Plan

SHORTEST_ANSWER_TOKENS = 64  # below it an answer is not worth its call
_WHERE = " (features in policies/budgets.yaml)"
CHEAPER, SHORTER, BRIEFER = "cheaper_model", "shorter_context", "shorter_answer"

Replan = Callable[[ChatBody, CostPolicy], Plan]


@dataclass
class ReducedJob:
    """A job as it may be sent. `given_up`: what it has given up, in order. `over`: why it may not be sent at all.
    `degrades`: it gives up more, rather than not to be sent for what it costs."""

    body: ChatBody
    restraint: CostPolicy
    given_up: dict[str, None] = field(default_factory=dict)
    over: str = ""
    degrades: bool = False

    def shorten(self) -> bool:
        """Leave out the older half of the conversation, if there is one."""
        if (shorter := shorter_context(self.body)) is self.body:
            return False
        self.body, self.given_up[SHORTER] = shorter, None
        return True


def reduced_for_budget(job: LLMJob, owner: Owner, allowances: BudgetState, routes: Sequence[Route]) -> ReducedJob:
    """What is known before a plan is made."""
    restraint = CostPolicy(ceiling=partial(allowances.ceiling, owner))
    why = allowances.cost_saving(owner)
    if avoided := allowances.avoided({route.entry.provider for route in routes}):
        everyone = all(route.entry.provider in avoided for route in routes)
        why = why or (f"{', '.join(sorted(avoided))} is at the end of its month's budget" if everyone else "")
        restraint = replace(restraint, avoided=avoided)
    sent = ReducedJob(job.body, restraint)
    if why:
        limit = allowances.budgets.cost_saving.output_tokens
        sent.restraint = replace(restraint, cheapest=True, output_tokens=limit, why=why)
        sent.shorten()
    if job.feature or allowances.budgets.features:
        _capped(sent, allowances.budgets.feature(job.feature), job.feature)
    return sent


def _capped(sent: ReducedJob, cap: FeatureCap, feature: str) -> None:
    """Within the feature's tokens of one job."""
    named = f"feature {feature or 'default'}"
    degrades = cap.when_over == "degrade"
    if cap.max_cost_usd is not None:
        sent.restraint, sent.degrades = replace(sent.restraint, cap=micros_of(cap.max_cost_usd)), degrades
    if cap.max_input_tokens is not None:
        while (tokens := estimated(sent.body)) > cap.max_input_tokens and degrades and sent.shorten():
            pass
        if tokens > cap.max_input_tokens:
            sent.over = f"about {tokens} tokens of input, {named} takes at most {cap.max_input_tokens} a job{_WHERE}"
    if (most := cap.max_output_tokens) is None:
        return
    asked = longest_answer(sent.body)
    if asked is None:
        bound = min(most, sent.restraint.output_tokens or most)
        sent.restraint = replace(sent.restraint, output_tokens=bound)
    elif asked > most and degrades:
        limits = {name: most for name in ("max_tokens", "max_completion_tokens") if sent.body.get(name) is not None}
        sent.body, sent.given_up[BRIEFER] = {**sent.body, **limits}, None  # type: ignore[typeddict-item]
    elif asked > most:
        sent.over = sent.over or f"{asked} tokens of output asked for, {named} takes at most {most} a job{_WHERE}"


def fitted_to_cap(sent: ReducedJob, planned: Plan, replan: Replan) -> Plan:
    """The plan, with what the job gives up until some route is within its cap; as it was where none comes to be."""
    while sent.degrades and _too_expensive(planned) and sent.shorten():
        planned = replan(sent.body, sent.restraint)
    restraint, found = sent.restraint, planned
    may_cut = sent.degrades and longest_answer(sent.body) is None  # what a job asks for by name is not cut below it
    length = restraint.output_tokens or 1024
    while may_cut and _too_expensive(found) and (length := length // 2) >= SHORTEST_ANSWER_TOKENS:
        found = replan(sent.body, replace(restraint, output_tokens=length))
        if found.candidates:
            sent.given_up[BRIEFER] = None
            planned = found
    if planned.why and planned.candidates:
        planned = _cheapest_first(planned)
        if planned.reordered and planned.candidates[0] != _listed_first(planned):
            sent.given_up[CHEAPER] = None
    return planned


def _too_expensive(planned: Plan) -> bool:
    """Whether no route is left, and some would do for less."""
    return not planned.candidates and any(each.code is RejectedFor.OVER_COST for each in planned.rejected)


def _cheapest_first(planned: Plan) -> Plan:
    """Where no price is known, a tier's last routes are its small ones."""
    if planned.order != "cost" or planned.estimates:
        return planned
    return replace(planned, candidates=smaller_first(planned.candidates))


def _listed_first(planned: Plan) -> Route:
    """The candidate that would be first as the map has them."""
    return min(planned.candidates, key=lambda route: planned.listed[route.name])
