"""``llm.chat``: one answer from a model behind any OpenAI-compatible API, with its tokens and cost recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Literal, NotRequired

from typing_extensions import TypedDict

from producer.conversation import Message as Said
from producer.errors import InvalidRequest
from tasks import Context, Cost, Repair, Turn, Unknown, action
from tasks._answers import parsed
from tasks._classify import error_of, meaning_of, unsent
from tasks._clients import PerLoop
from tasks._settings import cost_of

if TYPE_CHECKING:
    import openai


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

# The longest answer of a model that is not told its longest, for what is reserved before the call.
ANSWER_TOKENS = 16_384
# What a server adds to each message, and to the whole, beside the text.
MESSAGE_TOKENS = 8


def _cost(messages: list[Message], model: str, ctx: Context, max_tokens: int | None = None) -> Cost:
    """Return what one answer may cost at most: a token is a byte of text at least."""
    given = _with_history(messages, ctx.conversation) + _to_repair(ctx.repair)
    tokens_in = sum(_bytes_of(message) + MESSAGE_TOKENS for message in given) + MESSAGE_TOKENS
    tokens_out = max_tokens or ANSWER_TOKENS
    return Cost(usd=cost_of(model, tokens_in, tokens_out), tokens=tokens_in + tokens_out)


def _bytes_of(message: Mapping[str, Any]) -> int:
    return sum(len(text.encode(errors="replace")) for text in message.values() if isinstance(text, str)) + (
        len(repr(message["tool_calls"])) if "tool_calls" in message else 0
    )


@action(
    "llm.chat",
    effect="pure",
    dependency="llm",
    conversation="conversation_id",
    max_retries=5,
    max_repairs=2,
    cost=_cost,
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
    schema: dict[str, Any] | None = None,
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
        answer: ``json`` asks for one JSON value. An answer that is none is refused, and the model is told so and asked
            again, twice at most.
        schema: A JSON Schema that the value must fit, held to in the same way; it makes `answer` ``json``. The model
            is not shown it: `messages` say what is wanted.

    Raises:
        InvalidAnswer: If the answer is not what was asked for.
        Hold: If the server asks for patience (429, 529, or 503 with Retry-After).
        Refused: If it refused the request (4xx).
        Retry: If it could not be reached.
        Unknown: If it failed (5xx) or did not answer in time.
    """
    import openai  # noqa: PLC0415  as above

    given = _with_history(messages, ctx.conversation) + _to_repair(ctx.repair)
    if ctx.conversation is not None:
        _say(ctx.conversation, messages)  # first: what cannot be kept must not cost an answer
    wanted: dict[str, Any] = {"temperature": temperature, "max_completion_tokens": max_tokens}
    wants_json = answer == "json" or schema is not None
    if wants_json:
        wanted["response_format"] = {"type": "json_object"}
    try:
        completion = await _clients.get().chat.completions.create(
            messages=given,  # type: ignore[arg-type]  # the same, by its own name
            model=model,
            timeout=min(timeout or ctx.seconds_left, ctx.seconds_left),
            extra_headers=ctx.headers(),
            **{name: value for name, value in wanted.items() if value is not None},
        )
    except openai.APIError as error:
        raise error_of(meaning_of(error), _worded(error)) from error
    said = _answer(completion, ctx)
    if wants_json:
        said["json"] = parsed(said["text"], schema)
    if ctx.conversation is not None:
        _answer_in(ctx.conversation, completion.choices[0].message, said)
    return said


def _with_history(messages: list[Message], turn: Turn | None) -> list[dict[str, Any]]:
    """Return what the model is given: instructions, what was said before, and what is new."""
    given: list[dict[str, Any]] = [dict(message) for message in messages]
    if turn is None:
        return given
    # Of a long conversation the newest is given; what answers a call that is not must not come first.
    answered = dropwhile(lambda message: message.role == "tool", turn.messages)
    before = [_as_the_server_has_it(message) for message in answered]
    return [m for m in given if m["role"] == "system"] + before + [m for m in given if m["role"] != "system"]


def _as_the_server_has_it(message: Said) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool" and isinstance(message.tool_calls, dict):
        return shown | message.tool_calls  # which call it answers
    return shown if message.tool_calls is None else shown | {"tool_calls": message.tool_calls}


def _to_repair(repair: Repair | None) -> list[dict[str, Any]]:
    """Return what the model is told of its last answer, where that could not be used; no conversation keeps it."""
    if repair is None:
        return []
    return [
        {"role": "assistant", "content": repair.answer},
        {"role": "user", "content": f"That answer cannot be used: {repair.error}. Answer again, in full."},
    ]


def _say(turn: Turn, messages: list[Message]) -> None:
    """Add what the model is told in this turn to its conversation."""
    try:
        for message in messages:
            if message["role"] != "system":
                turn.append(message["role"], message["content"])
    except InvalidRequest as error:
        raise unsent(f"it cannot be kept: {error}") from error


def _answer_in(turn: Turn, answered: Any, said: Chat) -> None:
    """Add what the model answered."""
    calls = [call.model_dump(mode="json") for call in answered.tool_calls or ()]
    try:
        turn.append("assistant", said["text"], tool_calls=calls or None, tokens=said.get("tokens_out"))
    except InvalidRequest as error:
        raise Unknown(f"the model's answer cannot be kept: {error}") from error


def _answer(completion: Any, ctx: Context) -> Chat:
    _record(completion, ctx)
    if not completion.choices:
        raise Unknown("the model answered without a choice")
    choice = completion.choices[0]
    text = choice.message.content or ""
    chat = Chat(text=text, json=None, model=completion.model, finish_reason=choice.finish_reason or "unknown")
    if completion.usage is not None:
        chat["tokens_in"], chat["tokens_out"] = completion.usage.prompt_tokens, completion.usage.completion_tokens
    return chat


def _record(completion: Any, ctx: Context) -> None:
    """Record what the call used, before its answer is looked at: an answer that is refused cost the same."""
    usage = completion.usage
    if usage is not None:
        cost = cost_of(completion.model, usage.prompt_tokens, usage.completion_tokens)
        ctx.used(tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens, cost_usd=cost)


def _worded(error: openai.APIError) -> str:
    import openai  # noqa: PLC0415  as above

    match error:
        case openai.APIStatusError():
            return f"the model's server answered {error.status_code}: {error.message}"
        case openai.APITimeoutError():
            return f"the model did not answer in time: {error}"
        case _:
            return f"the model cannot be reached: {error.__cause__ or error}"
