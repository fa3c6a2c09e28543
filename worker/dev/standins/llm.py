"""A server that speaks OpenAI's chat completions and is no model: keyword rules stand in for one.

It says so wherever a caller can look: the root page, the model's name, the fingerprint, a header.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from worker.dev.standins.faults import Service
from worker.dev.standins.http_server import Answer, Request
from worker.dev.standins.rules import Category, read

MODEL = "stand-in-small"
FINGERPRINT = "surefoot-stand-in"
# What tokenizers come to for English; counting bytes lets other scripts cost more, as they do.
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4  # role and separators

_TICKET_ID = re.compile(r"\bT-\d+\b")
_SAYS = (
    "This is a stand-in, not a model. It answers chat completions with keyword rules, so that Surefoot's\n"
    "demo needs no account and no network. Nothing it says was thought by anything.\n"
    "Model name: stand-in-small.\n"
)


@dataclass(frozen=True, slots=True)
class LlmCall:
    """One chat completion that was answered.

    Attributes:
        unit: The ticket's id, or a hash of the last user message where it names none.
        category: What the rules made of it.
        prompt_tokens: Estimated from the text.
        completion_tokens: Estimated from the text.
        messages: What it was given.
    """

    unit: str
    category: Category
    prompt_tokens: int
    completion_tokens: int
    messages: Sequence[Mapping[str, Any]]


class LlmStandIn:
    """Answers chat completions; see `serving` for the server around it."""

    service = Service.LLM

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[LlmCall] = []

    @property
    def calls(self) -> list[LlmCall]:
        """The calls answered so far, faults not among them; a copy."""
        with self._lock:
            return list(self._calls)

    def unit_of(self, request: Request) -> str | None:
        """The first ticket id in the last user message, or a hash of it: a retry names the same unit."""
        chat = request.json() if request.path == "/v1/chat/completions" else None
        return _unit(_last_user_text(chat)) if _is_chat(chat) else None

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/":
                return Answer(200, _SAYS)
            case "GET", "/v1/models":
                return Answer(200, {"object": "list", "data": [_model()]})
            case "POST", "/v1/chat/completions":
                return self._chat(request)
        return self.refusal(404, f"{request.method} {request.path} is not served; this is a stand-in")

    def refusal(self, status: int, reason: str) -> Answer:
        """An error in OpenAI's shape."""
        kinds = {429: "rate_limit_error", 503: "server_error"}
        kind = kinds.get(status, "invalid_request_error")
        return Answer(status, {"error": {"message": reason, "type": kind, "param": None, "code": None}})

    def _chat(self, request: Request) -> Answer:
        chat = request.json()
        if not _is_chat(chat):
            return self.refusal(400, "the body must be JSON with messages, one of them the user's")
        if chat.get("stream"):
            return self.refusal(400, "this stand-in does not stream; leave stream out")
        text = _last_user_text(chat)
        reading = read(text)
        content = json.dumps(asdict(reading), ensure_ascii=False) if _wants_json(chat) else reading.reply
        prompt = sum(TOKENS_PER_MESSAGE + _tokens(_text(message)) for message in chat["messages"])
        call = LlmCall(_unit(text), reading.category, prompt, _tokens(content), chat["messages"])
        with self._lock:
            self._calls.append(call)
        return Answer(200, _completion(hashlib.sha256(request.body).hexdigest(), content, call))


def _completion(digest: str, content: str, call: LlmCall) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": f"chatcmpl-standin-{digest[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.completion_tokens,
            "total_tokens": call.prompt_tokens + call.completion_tokens,
        },
    }


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": FINGERPRINT}


def _is_chat(chat: Any) -> bool:
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    return any(message.get("role") == "user" for message in messages)


def _last_user_text(chat: Any) -> str:
    return _text([message for message in chat["messages"] if message.get("role") == "user"][-1])


def _text(message: dict[str, Any]) -> str:
    """The message's text, whether it came as one string or in parts; images and the like are skipped."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def _wants_json(chat: Any) -> bool:
    form = chat.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        return True
    # A ticket may speak of JSON too, so only those who instruct are heard.
    instructions = (_text(m) for m in chat["messages"] if m.get("role") in ("system", "developer"))
    return any("json" in text.lower() for text in instructions)


def _unit(text: str) -> str:
    named = _TICKET_ID.search(text)
    return named.group() if named else hashlib.sha256(text.encode()).hexdigest()[:16]


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)
