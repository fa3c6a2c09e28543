"""What ``llm.chat`` gives a model of a conversation."""

from __future__ import annotations

from producer.conversation import Message
from tasks import Turn
from tasks.llm import _with_history

CALL = [{"id": "call-1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]
ANSWER = {"tool_call_id": "call-1"}


def test_a_tool_s_answer_is_given_with_the_call_that_it_answers() -> None:
    turn = Turn("talk", (_said("assistant", "", CALL), _said("tool", "found", ANSWER), _said("assistant", "here")))
    assert _with_history([{"role": "user", "content": "thanks"}], turn) == [
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": "found", "tool_call_id": "call-1"},
        {"role": "assistant", "content": "here"},
        {"role": "user", "content": "thanks"},
    ]


def test_a_tool_s_answer_to_a_call_that_is_not_among_the_newest_is_left_out() -> None:
    """A model's server refuses it, and would refuse every turn from then on."""
    turn = Turn("talk", (_said("tool", "found", ANSWER), _said("tool", "more", ANSWER), _said("assistant", "here")))
    given = _with_history([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "thanks"}], turn)
    assert [message["role"] for message in given] == ["system", "assistant", "user"]


def _said(role: str, content: str, tool_calls: object = None) -> Message:
    return Message(role=role, content=content, tool_calls=tool_calls)  # type: ignore[arg-type]  # one of the four
