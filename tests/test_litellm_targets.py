"""`failover routes import`: where the calls of one LiteLLM deployment go, with which key. The inputs have the shapes of public
configs, one of each kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.importers.litellm import Imported, imported
from ops.importers.litellm.prefixes import prefixes
from producer.errors import ConfigurationError
from worker.routes.route import is_http_url
from worker.routes.schema import RouteMap


def of(folder: Path, params: dict[str, Any], environment: dict[str, str] | None = None, **beside: Any) -> Imported:
    """The import of a config with this one deployment."""
    config = {"model_list": [{"model_name": "a", "litellm_params": params, **beside}]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    found = imported(folder / "config.yaml", environment=environment)
    RouteMap.model_validate(found.routes)
    return found


def called(found: Imported) -> tuple[Any, ...]:
    (route,) = found.routes["hot"]
    return route["provider"], route["model"], route["baseUrl"], route["apiKeyEnv"]


def left_out(folder: Path, params: dict[str, Any], **beside: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        of(folder, params, **beside)
    return str(refused.value)


KEY = "os.environ/K"
TARGETS = yaml.safe_load((Path(__file__).parent / "data" / "litellm_targets.yaml").read_text())


@pytest.mark.parametrize(("params", "expected"), TARGETS, ids=lambda each: str(each)[:60])
def test_a_deployment_goes_where_litellm_sends_it(params: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    assert called(of(tmp_path, params)) == tuple(expected)


@pytest.mark.parametrize("name", [name for name, row in prefixes().items() if not row.left_out])
def test_every_prefix_of_the_table_has_an_address_or_asks_for_one(name: str, tmp_path: Path) -> None:
    row = prefixes()[name]
    if row.address is None and not row.bases:
        assert "needs an api_base" in left_out(tmp_path, {"model": f"{name}/m"})
        return
    provider, _, base_url, key = called(of(tmp_path, {"model": f"{name}/m"}))
    assert provider == row.provider and is_http_url(base_url) == (row.address is not None)
    assert key == (row.keys[0] if row.keys else "")
    assert row.provider == "openai" or "api.openai.com" not in base_url


@pytest.mark.parametrize(
    ("provider", "address", "key"),
    [
        ("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
        ("nvidia_nim", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
        ("vercel_ai_gateway", "https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
        ("minimax", "https://api.minimax.io/v1", "MINIMAX_API_KEY"),
        ("github", "https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
        ("perplexity", "https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
        ("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
        ("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
        ("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
        ("veniceai", "https://api.venice.ai/api/v1", "VENICE_AI_API_KEY"),
    ],
)
def test_known_prefixes_go_to_their_provider(provider: str, address: str, key: str, tmp_path: Path) -> None:
    assert called(of(tmp_path, {"model": f"{provider}/m"})) == (provider, "m", address, key)


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("none", ""),
        ("", ""),
        ("EMPTY", ""),
        ("not-needed", ""),
        ("dummy", ""),
        ("sk-no-key-required", ""),
        ("lm-studio", ""),
        ("${X}", "X"),
        ("os.environ/X", "X"),
        (["X"], "X"),
        ("your-api-key", "OPENAI_API_KEY"),
        ("sk-live-1234567890", "MODEL_LIST_ENTRY_1_KEY"),
        (None, "OPENAI_API_KEY"),
    ],
)
def test_keys_are_taken_by_their_variable_alone(key: Any, variable: str, tmp_path: Path) -> None:
    found = of(tmp_path, {"model": "openai/m", "api_base": "http://h:8000/v1", "api_key": key})
    assert called(found)[3] == variable
    assert "sk-live" not in json.dumps(found.routes) + str(found.report)


def test_without_a_key_the_first_variable_that_is_set_is_read(tmp_path: Path) -> None:
    assert called(of(tmp_path, {"model": "perplexity/sonar"}, {"PERPLEXITY_API_KEY": "k"}))[3] == "PERPLEXITY_API_KEY"
    assert called(of(tmp_path, {"model": "ollama/m"}, {"OLLAMA_API_BASE": "http://o:1"}))[2] == "${OLLAMA_API_BASE}/v1"


NOT_CHAT = [
    "whisper-1",
    "azure/whisper",
    "dall-e-3",
    "text-embedding-3-small",
    "openai/gpt-image-1",
    "tts-1",
    "gpt-4o-mini-tts",
]
NOT_CHAT += [
    "gemini/text-embedding-004",
    "ollama/nomic-embed-text",
    "openai/bge-m3",
    "cohere/embed-english-v3.0",
    "mistral/mistral-embed",
]
NOT_CHAT += [
    "openai/gpt-4o-transcribe",
    "cohere/rerank-english-v3.0",
    "omni-moderation-latest",
    "gpt-3.5-turbo-instruct",
]


@pytest.mark.parametrize("model", NOT_CHAT)
def test_what_is_no_chat_model_is_left_out_and_said(model: str, tmp_path: Path) -> None:
    assert "is no chat model" in left_out(tmp_path, {"model": model, "api_base": "http://h/v1", "api_key": "none"})


def test_the_mode_decides_where_it_is_given(tmp_path: Path) -> None:
    for alias, model in (
        ("image-captions", "openai/qwen"),
        ("tts-chat", "gpt-4o"),
        ("live", "groq/llama"),
        ("parse", "xai/g"),
    ):
        assert of(tmp_path, {"model": model, "api_key": "none"}, model_name=alias).routes
    assert "is no chat model (embeddings)" in left_out(tmp_path, {"model": "ollama/nomic"}, model_name="my-embeddings")
    azure = {"model": "azure/mine", "api_base": "https://r.openai.azure.com"}
    assert "has the mode embedding" in left_out(tmp_path, azure, model_info={"mode": "embedding"})
    assert "has the mode image_generation" in left_out(tmp_path, {**azure, "model_info": {"mode": "image_generation"}})
    assert "is no chat model" in left_out(tmp_path, azure, model_info={"base_model": "azure/text-embedding-ada-002"})
    assert called(of(tmp_path, {"model": "openai/tts-chat"}, model_info={"mode": "chat"}))[1] == "tts-chat"
    assert "mode responses" in str(of(tmp_path, {"model": "gpt-5-codex"}, model_info={"mode": "responses"}).report)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"model": "bedrock/anthropic.claude-v2", "aws_region_name": "us-east-1"},
            "bedrock has no counterpart: its calls are signed",
        ),
        (
            {"model": "vertex_ai/gemini-2.5-pro"},
            "vertex_ai has no counterpart: its access tokens last an hour: use gemini/",
        ),
        ({"model": "watsonx/deployment/x"}, "watsonx has no counterpart"),
        ({"model": "replicate/meta/llama"}, "replicate has no counterpart"),
        ({"model": "openai/*"}, "openai/* stands for many models: add an entry for each one"),
        (
            {"model": "zhipu/glm-4-flash", "api_key": KEY},
            "the prefix of zhipu/glm-4-flash names no known provider: add",
        ),
        ({"model": "my-model", "api_key": KEY}, "the name my-model names no known provider"),
        ({}, "has no model"),
        (
            {"model": "gemini/g", "api_base": "https://aiplatform.googleapis.com/v1/publishers/google"},
            "api_base is Vertex's, without",
        ),
    ],
)
def test_what_has_no_route_is_said_with_the_reason_and_the_fix(
    params: dict[str, Any], said: str, tmp_path: Path
) -> None:
    told = left_out(tmp_path, params)
    assert said in told and "entry 1 (a)" in told


def test_a_key_never_goes_to_openai_because_nothing_else_is_known(tmp_path: Path) -> None:
    for params in ({"model": "mystery", "api_key": KEY}, {"model": "zhipu/glm", "api_key": "sk-abcdef"}):
        left_out(tmp_path, params)
    assert called(of(tmp_path, {"model": "openai/claude-3", "api_key": "sk-ant-api03-abc"}))[:3] == (
        "anthropic",
        "claude-3",
        "https://api.anthropic.com/v1",
    )
