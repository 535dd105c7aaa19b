"""Money: spending, caps and alert thresholds of this month; cost saving."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from ops.web.pages.page import Pages
from worker.money import billing_alerts, budget_state
from worker.money.billing_alerts import Guardrail
from worker.money.budget_state import month_of
from worker.money.caps import load_budgets
from worker.reports import statement

LISTED = 100  # scopes on a page


def add(router: APIRouter, pages: Pages) -> None:
    @router.get("/ui/money")
    def money(request: Request) -> Response:
        client, environment = pages.client, pages.environment
        month = month_of(datetime.now(UTC))
        budgets, guardrail = load_budgets(environment), Guardrail.of(environment)
        standing = budget_state.standing(client, month)
        lines = statement.balances(statement.sums(client, month), budgets, standing, statement.set_by(client))
        wanted = request.query_params.get("find", "").strip()
        if wanted:
            lines = [line for line in lines if wanted.lower() in line.scope.lower()]
        shown, rest = statement.shortened(lines, {*budgets.named, *standing.caps})
        reports = [each for each in billing_alerts.known(client) if each.budget != billing_alerts.OWN_NAME]
        return pages.render(
            request, "money.html", month=month, lines=shown[:LISTED], rest=rest, reports=reports[:LISTED], find=wanted,
            pause_at=guardrail.at_percent, reduced=standing.reduced, statuses=standing.cap_statuses,
        )  # fmt: skip
