"""Where telemetry goes and what it holds, by the variables of OpenTelemetry, Langfuse and Helicone.

OpenTelemetry's: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. They are read from `.env`
too. A variable that cannot be used is never a reason not to work: it is told, and the rest is used.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from producer.environment import Environment, is_http_url

LANGFUSE = "https://cloud.langfuse.com"
LANGFUSE_PATH = "/api/public/otel"
HELICONE = "https://api.worker.helicone.ai/custom/v1/log"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LATEST = "gen_ai_latest_experimental"  # in OTEL_SEMCONV_STABILITY_OPT_IN
SWITCHES = (  # any of them turns telemetry on
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "LANGFUSE_PUBLIC_KEY",
    "HELICONE_API_KEY",
)


@dataclass(frozen=True)
class Destination:
    """One receiver. `name`: for people. `traces`, `metrics`: URLs, "" for what it does not get. `certificate`: a file of
    certificates to trust; `identity`: files of a client's certificate and its key. Times in seconds."""

    name: str
    traces: str
    metrics: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a key
    form: Literal["otlp", "helicone"] = "otlp"
    timeout: float = 10.0
    gzip: bool = False
    certificate: str = ""
    identity: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Sampling:
    """Which traces are recorded: this share of those that begin here, and of others as their parent says (`by_parent`)."""

    share: float = 1.0
    by_parent: bool = True

    def of(self, trace_id: bytes, parent_is_sampled: bool | None) -> bool:
        """`parent_is_sampled`: None for a trace that begins here."""
        if self.by_parent and parent_is_sampled is not None:
            return parent_is_sampled
        return int.from_bytes(trace_id[8:], "big") < self.share * 2**64


@dataclass(frozen=True)
class Settings:
    """`resource`: attributes of every span. `spans`, `batch`: at most so many wait, and go out together. `delay`,
    `metrics_every`: seconds. `content`: prompts and answers too. `problems`: variables that cannot be used, for people."""

    destinations: tuple[Destination, ...] = ()
    resource: Mapping[str, str] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    spans: int = 2048
    batch: int = 512
    delay: float = 5.0
    metrics_every: float = 60.0
    delta: bool = False
    content: bool = False
    langfuse: bool = False
    older_names: bool = True  # of metrics, which most dashboards still use
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Environment) -> Settings | None:
        """None if no variable turns telemetry on, or OTEL_SDK_DISABLED turns it off."""
        if not any(environment.get(name) for name in SWITCHES) or _is_true(environment, "OTEL_SDK_DISABLED"):
            return None
        problems: list[str] = []
        numbers = _Numbers(environment, problems)
        destinations = [*_otlp(environment, numbers), *_langfuse(environment, problems), *_helicone(environment)]
        spans = max(1, int(numbers.positive("OTEL_BSP_MAX_QUEUE_SIZE", 2048)))
        return cls(
            destinations=tuple(each for each in destinations if _usable(each, problems)),
            resource=_resource(environment),
            sampling=_sampling(environment, problems),
            spans=spans,
            batch=min(spans, max(1, int(numbers.positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)))),
            delay=numbers.positive("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
            metrics_every=numbers.positive("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000,
            delta=environment.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").lower() == "delta",
            content=environment.get(CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event"),
            langfuse=any(LANGFUSE_PATH in each.traces for each in destinations),
            older_names=LATEST not in environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", ""),
            problems=tuple(problems),
        )


@dataclass(frozen=True)
class _Numbers:
    environment: Environment
    problems: list[str]

    def positive(self, name: str, default: float) -> float:
        """The variable's number, or `default`."""
        value = self.environment.get(name, "").strip()
        try:
            number = float(value) if value else default
        except ValueError:
            number = 0.0
        if not 0 < number < 1e9:
            self.problems.append(f"{name}: {value!r:.40} is not a number above 0, {default:g} is used")
            return default
        return number


def _is_true(environment: Environment, name: str) -> bool:
    return environment.get(name, "").strip().lower() == "true"


def _otlp(environment: Environment, numbers: _Numbers) -> list[Destination]:
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    traces, metrics = (_address(environment, base, signal) for signal in ("traces", "metrics"))
    if LANGFUSE_PATH in base and metrics.startswith(base):
        metrics = ""  # Langfuse takes traces alone
    if not traces and not metrics:
        return []
    own = "TRACES" if traces else "METRICS"

    def name_of(variable: str) -> str:
        """That of the signal, if it is set, else that of both."""
        special = f"OTEL_EXPORTER_OTLP_{own}_{variable}"
        return special if environment.get(special) else f"OTEL_EXPORTER_OTLP_{variable}"

    def either(variable: str) -> str:
        return environment.get(name_of(variable), "").strip()

    if (protocol := either("PROTOCOL")) not in ("", "http/protobuf"):
        told = f"{protocol!r:.40} is not supported, http/protobuf is used (usually port 4318)"
        numbers.problems.append(f"{name_of('PROTOCOL')}: {told}")
    certificate, key = either("CLIENT_CERTIFICATE"), either("CLIENT_KEY")
    return [
        Destination(
            name="OTLP",
            traces=traces,
            metrics=metrics,
            headers={name.lower(): value for name, value in _pairs(either("HEADERS")).items()},
            timeout=_seconds(numbers.positive(name_of("TIMEOUT"), 10_000)),
            gzip=either("COMPRESSION").lower() == "gzip",
            certificate=either("CERTIFICATE"),
            identity=(certificate, key) if certificate and key else None,
        )
    ]


def _seconds(timeout: float) -> float:
    """Milliseconds by the specification, and seconds by OpenTelemetry's own SDK for Python: nobody means 10 ms, or 100 s."""
    return timeout if timeout < 100 else timeout / 1000


def _address(environment: Environment, base: str, signal: Literal["traces", "metrics"]) -> str:
    if environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return ""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    return own or (f"{base.rstrip('/')}/v1/{signal}" if base else "")


def _langfuse(environment: Environment, problems: list[str]) -> list[Destination]:
    public, secret = environment.get("LANGFUSE_PUBLIC_KEY"), environment.get("LANGFUSE_SECRET_KEY")
    if public and not secret:
        problems.append("LANGFUSE_PUBLIC_KEY: LANGFUSE_SECRET_KEY is missing beside it; Langfuse gets nothing")
    if not public or not secret:
        return []
    base = environment.get("LANGFUSE_BASE_URL") or environment.get("LANGFUSE_HOST") or LANGFUSE
    pair = base64.b64encode(f"{public}:{secret}".encode()).decode()
    headers = {"authorization": f"Basic {pair}", "x-langfuse-ingestion-version": "4"}
    return [Destination("Langfuse", f"{base.rstrip('/')}{LANGFUSE_PATH}/v1/traces", headers=headers)]


def _helicone(environment: Environment) -> list[Destination]:
    key = environment.get("HELICONE_API_KEY")
    url = environment.get("HELICONE_LOG_URL") or HELICONE
    return [Destination("Helicone", url, headers={"authorization": f"Bearer {key}"}, form="helicone")] if key else []


def _usable(destination: Destination, problems: list[str]) -> bool:
    for url in filter(None, (destination.traces, destination.metrics)):
        if not is_http_url(url):
            problems.append(
                f"{destination.name}: its endpoint is no http(s) URL, as in http://localhost:4318; it gets nothing"
            )
            return False
    return True


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key2=value2`, with values percent-encoded, as in W3C baggage."""
    pairs = (entry.partition("=") for entry in text.split(",") if "=" in entry)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs if key.strip()}


def _resource(environment: Environment) -> dict[str, str]:
    found = _pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = environment.get("OTEL_SERVICE_NAME")
    return {**found, "service.name": name} if name else found


def _sampling(environment: Environment, problems: list[str]) -> Sampling:
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    by_parent = kind != name
    if kind in ("always_on", "always_off"):
        return Sampling(1.0 if kind == "always_on" else 0.0, by_parent)
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if kind != "traceidratio" or not 0 <= share <= 1:
        problems.append(
            f"OTEL_TRACES_SAMPLER: {name} {text!r:.40} is no sampler with a share of 0 to 1; all is recorded"
        )
        return Sampling()
    return Sampling(share, by_parent)
