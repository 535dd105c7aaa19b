"""The `failover` command. An error is one sentence on stderr and an exit code by its kind, without a traceback.

A command is imported when it is used: `failover --help` would take several times as long with all of them.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib import import_module

import click

from ops.options import as_json
from ops.printing import guard_output
from producer.environment import Environment, load_environment
from producer.errors import FailoverError

INTERRUPTED = "interrupted; accepted jobs stay accepted (`failover status`), and `batch run` continues where it stopped"
EXIT_CODES = (
    "Exit codes: 0 done, 1 some work failed, 2 wrong usage or configuration, 3 Redis is not reachable or not safe."
)
COMMANDS = {  # name -> where it is in ops/commands/, and its help in one line
    "batch": ("batch:group", "Batch files in the OpenAI Batch format."),
    "budget": ("budget:group", "The spending, the caps, and cost saving."),
    "cache": ("cache:group", "The answer cache (policies/cache.yaml)."),
    "costs": ("costs:group", "Plan what failover costs a month, and what it saves."),
    "dlq": ("dlq:group", "Dead letters: jobs that ended without an answer."),
    "doctor": ("doctor:doctor", "Check configuration, Redis, keys, routes and clock."),
    "drill": ("drill:group", "Drills that pass or fail."),
    "history": ("history:group", "What happened in the last minutes, days and months."),
    "init": ("setup.init:init", "Write routes.json, policies and .env for the API keys that are set."),
    "incidents": ("incidents:group", "Incidents: open ones, past ones, and their messages."),
    "job": ("job:group", "Show, explain and cancel jobs."),
    "messages": ("messages:group", "Message templates for clients (policies/messages/)."),
    "notify": ("notify:group", "The channels for messages to people."),
    "pause": ("pause:pause", "Start no more jobs."),
    "resume": ("pause:resume", "Clear the pause flag."),
    "review": ("review:group", "Jobs that a person may answer by hand."),
    "review-month": (
        "slo.review_month:review_month",
        "Draft the monthly review: what was saved, what to change, and why.",
    ),
    "routes": ("routes:group", "The routing map: show, check, compare, import; switch a route off and on."),
    "schedule": ("schedule:group", "What policies/schedules.yaml starts, and when."),
    "serve": ("serve:serve", "Serve jobs, the budget webhook, health and metrics over HTTP."),
    "slo": ("slo:group", "What clients were promised, against what was measured."),
    "submit": ("job:submit", "Submit one job: prints its id, or with --wait its answer."),
    "up": ("setup.up:up", "Run worker and web process here, with a live view, until Ctrl-C."),
    "tokens": ("tokens:group", "Who may call the web process, beside FAILOVER_API_TOKEN, which is the operator's."),
}


class Commands(click.Group):
    """The commands of this file, and those of COMMANDS."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*self.commands, *COMMANDS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return super().get_command(context, name)
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(f"ops.commands.{module}"), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        here = {name: command.get_short_help_str(formatter.width) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted((here | {name: told for name, (_, told) in COMMANDS.items()}).items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="failover-worker")
@click.pass_context
def failover(context: click.Context) -> None:
    """Submit LLM jobs, see their state, and operate the system. Configuration: the environment or `.env`."""
    context.obj = load_environment()


@failover.command()
@as_json
def demo(as_json: bool) -> None:
    """Run a batch through an outage of the hot provider. It needs no key, no Redis and no network."""
    from ops.demo import run

    sys.exit(run(as_json=as_json))


@failover.command()
@as_json
@click.pass_obj
def status(environment: Environment, as_json: bool) -> None:
    """Show what is paused, queued, running, waiting and dead."""
    from ops.local import session
    from ops.reports import status as status_view
    from producer.client import DEFAULT_QUEUE

    with session.reached(environment) as (_, client):
        found = status_view.gather(client, DEFAULT_QUEUE)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    status_view.render(found, session.console())


def main() -> None:
    """Entry point. SIGTERM works like Ctrl-C: running jobs go back to the queue, and the embedded server stops."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guard_output()
    try:
        failover.main(standalone_mode=False)
    except FailoverError as error:
        _note(f"failover: {error}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UnicodeError:
        _note("failover: an argument is not UTF-8 text")
        sys.exit(2)
    except OSError as error:
        _note(f"failover: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt) as ended:
        interrupted = isinstance(ended, KeyboardInterrupt) or isinstance(ended.__cause__, KeyboardInterrupt)
        _note(INTERRUPTED if interrupted else "not confirmed, so nothing was done")
        sys.exit(130)
    except Exception as error:
        if not _is_of_redis(error):
            raise
        _note(f"failover: Redis failed during the command: {error} — run it again when Redis is back")
        sys.exit(3)


def _is_of_redis(error: Exception) -> bool:
    from redis.exceptions import RedisError

    return isinstance(error, RedisError)


def _note(text: str) -> None:
    click.echo(text, err=True)
