"""``llm.chat``: one answer from a model behind any OpenAI-compatible API, with its tokens and cost recorded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NotRequired

from typing_extensions import TypedDict

from producer.canonical import DEPTH_LIMIT, parse_json
from producer.conversation import Message as Said
from producer.errors import InvalidRequest
from tasks import Context, Hold, Refused, Retry, Turn, Unknown, action
from tasks._clients import PerLoop
from tasks._retry_after import retry_after, should_retry
from tasks._settings import cost_of

if TYPE_CHECKING:
    import openai

TOO_MANY = frozenset({429, 529})
INDEFINITE = frozenset({408, 409, 425})
SERVER_ERRORS = 500


class Message(TypedDict):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(TypedDict):
    """The model's answer; `json` is the parsed text where JSON was asked for."""

    text: str
    json: Any
    model: str
    finish_reason: str
    tokens_in: NotRequired[int]
    tokens_out: NotRequired[int]


def _client() -> openai.AsyncOpenAI:
    import openai  # noqa: PLC0415  a fifth of a worker's memory, for those that talk to models only

    # max_retries=0: the job is the one layer that retries. Five layers of three tries are 243 calls.
    return openai.AsyncOpenAI(max_retries=0, api_key=os.environ.get("OPENAI_API_KEY") or "none")


_clients = PerLoop(_client)


@action(
    "llm.chat",
    effect="pure",
    dependency="llm",
    conversation="conversation_id",
    max_retries=5,
    retry_backoff=2,
    timeout=120,
)
async def chat(
    messages: list[Message],
    model: str,
    ctx: Context,
    conversation_id: str | None = None,  # noqa: ARG001  for the worker, which has it as `ctx.conversation`
    temperature: float | None = None,
    max_tokens: int | None = None,
    answer: Literal["text", "json"] = "text",
    timeout: float | None = None,  # noqa: ASYNC109  handed to the SDK, which knows what had happened by then
) -> Chat:
    """Ask a model. ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` say which; any compatible server will do.

    Args:
        messages: The conversation so far; or what is new in it, where it is kept as `conversation_id`.
        model: The model's name, as its server knows it.
        ctx: The attempt.
        conversation_id: Has the model see what was said before in this conversation, between the system's messages and
            the others of `messages`; these and the answer are added to it, once and together, if the job succeeds. The
            system's are not: they are this turn's instructions.
        temperature: None is the server's default.
        max_tokens: The longest answer; None is the server's default.
        timeout: Seconds for this call; None, or more than the attempt has left, is what it has left.
        answer: ``json`` asks for one JSON value and refuses an answer that is not; the attempt is then tried again.

    Raises:
        Hold: If the server asks for patience (429, 529).
        Refused: If it refused the request (4xx).
        Retry: If it could not be reached.
        Unknown: If it failed (5xx) or did not answer in time.
    """
    import openai  # noqa: PLC0415  as above

    wanted: dict[str, Any] = {"temperature": temperature, "max_completion_tokens": max_tokens}
    if answer == "json":
        wanted["response_format"] = {"type": "json_object"}
    try:
        completion = await _clients.get().chat.completions.create(
            messages=_with_history(messages, ctx.conversation),  # type: ignore[arg-type]  # the same, by its own name
            model=model,
            timeout=min(timeout or ctx.seconds_left, ctx.seconds_left),
            extra_headers=ctx.headers(),
            **{name: value for name, value in wanted.items() if value is not None},
        )
    except openai.APIStatusError as error:
        raise _refusal(error) from error
    except openai.APITimeoutError as error:
        raise Unknown(f"the model did not answer in time: {error}") from error
    except openai.APIConnectionError as error:
        raise Retry(f"the model cannot be reached: {error.__cause__ or error}") from error
    said = _answer(completion, answer, ctx)
    if ctx.conversation is not None:
        _remember(ctx.conversation, messages, completion.choices[0].message, said)
    return said


def _with_history(messages: list[Message], turn: Turn | None) -> list[dict[str, Any]]:
    """Return what the model is given: instructions, what was said before, and what is new."""
    given: list[dict[str, Any]] = [dict(message) for message in messages]
    if turn is None:
        return given
    before = [_as_the_server_has_it(message) for message in turn.messages]
    return [m for m in given if m["role"] == "system"] + before + [m for m in given if m["role"] != "system"]


def _as_the_server_has_it(message: Said) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool" and isinstance(message.tool_calls, dict):
        return shown | message.tool_calls  # which call it answers
    return shown if message.tool_calls is None else shown | {"tool_calls": message.tool_calls}


def _remember(turn: Turn, messages: list[Message], answered: Any, said: Chat) -> None:
    """Add what was said in this turn to its conversation."""
    calls = [call.model_dump(mode="json") for call in answered.tool_calls or ()]
    try:
        for message in messages:
            if message["role"] != "system":
                turn.append(message["role"], message["content"])
        turn.append("assistant", said["text"], tool_calls=calls or None, tokens=said.get("tokens_out"))
    except InvalidRequest as error:
        raise Unknown(f"the model's answer cannot be kept: {error}") from error


def _answer(completion: Any, answer: str, ctx: Context) -> Chat:
    _record(completion, ctx)
    if not completion.choices:
        raise Unknown("the model answered without a choice")
    choice = completion.choices[0]
    text = choice.message.content or ""
    chat = Chat(text=text, json=None, model=completion.model, finish_reason=choice.finish_reason or "unknown")
    if answer == "json":
        try:
            chat["json"] = parse_json(text, where="the answer", depth_limit=DEPTH_LIMIT - 1)
        except InvalidRequest as error:
            raise Unknown(f"the model was asked for JSON: {error}") from error
    if completion.usage is not None:
        chat["tokens_in"], chat["tokens_out"] = completion.usage.prompt_tokens, completion.usage.completion_tokens
    return chat


def _record(completion: Any, ctx: Context) -> None:
    """Record what the call used, before its answer is looked at: an answer that is refused cost the same."""
    usage = completion.usage
    if usage is not None:
        cost = cost_of(completion.model, usage.prompt_tokens, usage.completion_tokens)
        ctx.used(tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens, cost_usd=cost)


def _refusal(error: openai.APIStatusError) -> Hold | Refused | Unknown:
    headers, status = error.response.headers, error.status_code
    after = retry_after(headers, now=datetime.now(UTC))
    message = f"the model's server answered {status}: {error.message}"
    wanted = should_retry(headers)
    if status in TOO_MANY and wanted is not False:
        return Hold(message, after=after)
    if wanted or (wanted is None and (status >= SERVER_ERRORS or status in INDEFINITE)):
        return Unknown(message, after=after)
    return Refused(message)
