"""Which models do no chat, by their mode or by their name."""

from __future__ import annotations

import re
from typing import Any

from ops.importers.litellm.prefixes import of_name

_CHAT_MODES = (None, "chat", "responses")
_NO_CHAT = re.compile(  # of the chat models in LiteLLM's price list it finds only those that make images, voices, embeddings
    r"(?:^|[/_.:-])(whisper|dall-?e|text-embedding|embed|embeddings?|multimodalembedding|gpt-image|chatgpt-image|image|imagen"
    r"|stable-diffusion|sdxl|flux|veo|sora|video|t2v|i2v|tts|stt|speech|orpheus|transcribe|transcription|asr|realtime|live"
    r"|native-audio|moderation|rerank|reranker|rerankqa|ranker|bge|e5|gte|minilm|parse|text-davinci|davinci|babbage"
    r"|turbo-instruct)(?=[/_.:@-]|\d|$)",
    re.IGNORECASE,
)
_NO_CHAT_ALIAS = re.compile(r"\b(whisper|dall-?e|embeddings?|gpt-image|tts|rerank(?:er)?|moderation)\b", re.IGNORECASE)


def why_no_chat(model: str, base_model: str, alias: str, mode: Any) -> str:
    """The reason and the fix; "" for a chat model. `mode`: of model_info; None without one. An alias tells something only
    where the model is called by a name of somebody's own, as Azure's deployments are."""
    if mode not in _CHAT_MODES:
        return f"{model} has the mode {mode}, the worker sends chats: call it directly"
    if mode is not None:
        return ""
    found = _NO_CHAT.search(model) or _NO_CHAT.search(base_model)
    if found is None and of_name(model.rpartition("/")[2]) is None:
        found = _NO_CHAT_ALIAS.search(alias)
    if found is None:
        return ""
    return f"{model} is no chat model ({found[1]}): call it directly; if it is one, set model_info.mode to chat"
