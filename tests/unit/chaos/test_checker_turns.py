"""I19: turns that ran at the same time, and what was said twice, lost or mixed up."""

from __future__ import annotations

import pytest

from producer.ledger.states import State
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, findings, judged, the_finding


def turn(story: Story, conversation: str = "c") -> JobStory:
    return story.accepted("chaos.pure").in_conversation(conversation)


def ended(job: JobStory, *, said: int = 1) -> JobStory:
    job.claimed().intended().settled()
    job.params["says"] = said
    return job.said(said)


def test_turns_that_follow_one_another_hold() -> None:
    story = Story(expect_faults=False)
    ended(turn(story), said=2)
    ended(turn(story), said=3)
    assert (broken(story), judged(story, "I19")) == (set(), 2)


def test_a_turn_that_begins_before_the_one_ahead_has_ended() -> None:
    story = Story(expect_faults=False)
    first = turn(story).claimed().intended()
    ended(turn(story))
    first.settled()
    assert broken(story) == {"I19"}
    assert the_finding(story, "I19").startswith("a turn begins after the one before it has ended / begun at ")


@pytest.mark.parametrize("waits", [True, False], ids=["retry", "doubt"])
def test_a_turn_is_its_job_s_while_it_waits_and_while_it_is_in_doubt(waits: bool) -> None:  # noqa: FBT001
    story = Story(expect_faults=False)
    first = turn(story).claimed().intended()
    if waits:
        first.parked("retry")
    else:
        first.settled(State.IN_DOUBT, maybe_happened=True)
    ended(turn(story))
    assert "I19" in broken(story)


def test_turns_of_other_conversations_and_those_still_held_do_not_matter() -> None:
    story = Story(expect_faults=False)
    first = turn(story).claimed().intended()
    ended(turn(story, "another"))
    turn(story).claimed().parked("conversation").cancelled()
    first.settled()
    assert findings(story, "I19") == []


def test_what_a_turn_said_twice() -> None:
    story = Story(expect_faults=False)
    ended(turn(story)).said(1)
    assert the_finding(story, "I19") == "1 messages, said once / 2"


def test_what_a_turn_said_and_is_not_there() -> None:
    story = Story(expect_faults=False)
    ended(turn(story), said=2)
    story.messages.pop()
    assert the_finding(story, "I19") == "2 messages, said once / 1"


def test_what_was_said_by_a_turn_that_did_not_succeed() -> None:
    story = Story(expect_faults=False)
    turn(story).claimed().intended().settled(State.DEAD).said(1)
    assert the_finding(story, "I19") == "nothing said by a turn that is dead / 1 messages"


def resolved_turn() -> tuple[Story, JobStory]:
    story = Story()
    story.fault("sigstop")
    job = story.accepted("chaos.unsafe").in_conversation("c").claimed().intended().requested("applied")
    job.settled(State.IN_DOUBT, maybe_happened=True).params["says"] = 2
    return story, job.resolved("happened", State.SUCCEEDED)


def test_a_turn_that_a_person_says_has_happened_has_said_nothing() -> None:
    assert findings(resolved_turn()[0], "I19") == []


def test_what_is_said_by_a_turn_that_a_person_says_has_happened() -> None:
    story, job = resolved_turn()
    job.said(2)
    assert the_finding(story, "I19") == "nothing said by a turn that is succeeded by a person's word / 2 messages"


def test_messages_that_do_not_count_from_1() -> None:
    story = Story(expect_faults=False)
    ended(turn(story), said=2)
    story.messages[1]["seq"] = 3
    assert the_finding(story, "I19") == "messages of c that count from 1 without a gap / [1, 3]"


def test_others_that_speak_in_the_midst_of_a_turn() -> None:
    story = Story(expect_faults=False)
    ended(turn(story), said=2)
    ended(turn(story), said=1)
    story.messages[1]["seq"], story.messages[2]["seq"] = 3, 2
    assert the_finding(story, "I19") == "what a turn of c has said stands together / others spoke in between"


def test_messages_of_nobody() -> None:
    story = Story(expect_faults=False)
    ended(turn(story))
    nobody = "00000000-0000-0000-0000-000000000001"
    story.messages.append(story.messages[0] | {"seq": 2, "job_id": nobody})
    assert the_finding(story, "I19") == "no message without its job / in c"
