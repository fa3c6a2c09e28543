"""Settling attempts that bring something along: follow-ups, what they said, what people are asked, a true result.

All in the transaction of their outcome.

The outcome goes first. Only where it is this attempt's to write is the rest written; and where the rest is refused, the
outcome is taken back with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from producer.envelope import Envelope
from producer.errors import KeyInFlight, RequestRefused
from producer.ledger.accept import accept, refuse_conflicts
from producer.ledger.deciding import ask
from producer.ledger.engine import transaction_on
from producer.ledger.states import State
from producer.ledger.superseding import supersede
from worker.attempt import Settlement
from worker.statements import Settled, settle
from worker.turns import append

# Follow-ups and messages in one transaction, and their characters: others wait for what it locks, and whatever else
# this process writes. A statement of a gibibyte would end the connection, and the next try's just so.
PORTION = 1_000
PORTION_CHARACTERS = 16 << 20

OnAccepted = Callable[[Iterable[Envelope]], None]


def settle_with(
    connection: Connection, worker: str, settlements: Sequence[Settlement], *, on_accepted: OnAccepted
) -> dict[UUID, Settled | RequestRefused]:
    """Settle attempts with what they bring, many in one transaction; where one is refused, each in its own.

    Args:
        connection: In autocommit.
        worker: Named in the events.
        settlements: Of one job each.
        on_accepted: Told, after the commit, which follow-ups are new and due. A crash before that leaves them to the
            relay.

    Returns:
        As `settle`; or, where what an attempt brings is refused, why: nothing of that attempt was written then.
    """
    answers: dict[UUID, Settled | RequestRefused] = {}
    waiting = list(portions(settlements))
    while waiting:
        portion = waiting.pop(0)
        try:
            with transaction_on(connection):
                written, accepted = _write(connection, worker, portion)
        except RequestRefused as error:
            if len(portion) == 1:
                answers[portion[0].job_id] = error
            else:
                waiting[:0] = [[settlement] for settlement in portion]
        else:
            answers |= written
            on_accepted(accepted)
    return answers


def portions(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Split settlements so that no transaction has to write much more than one of them may bring."""
    portion: list[Settlement] = []
    size = characters = 0
    for settlement in settlements:
        brought = len(settlement.follow_ups) + len(settlement.messages)
        written = sum(envelope.characters for envelope in settlement.follow_ups)
        written += sum(message.size for message in settlement.messages)
        if portion and (size + brought > PORTION or characters + written > PORTION_CHARACTERS):
            yield portion
            portion, size, characters = [], 0, 0
        portion.append(settlement)
        size, characters = size + brought, characters + written
    yield portion


def _write(
    connection: Connection, worker: str, settlements: Sequence[Settlement]
) -> tuple[dict[UUID, Settled | RequestRefused], list[Envelope]]:
    """Write the outcomes, and what those that are settled bring; return the answers and the follow-ups to ring for.

    Raises:
        RequestRefused: If something that they bring cannot be accepted.
    """
    answers = settle(connection, worker, settlements, prepared=False)
    settled = [settlement for settlement in settlements if answers.get(settlement.job_id) == "settled"]
    speaking = [settlement for settlement in settled if settlement.messages]
    if speaking and append(connection, speaking) != {settlement.job_id for settlement in speaking}:
        raise RequestRefused("the conversation's turn is another job's, so nothing can be said in it")
    superseding = [each.job_id for each in settled if each.supersedes and each.becomes is State.SUCCEEDED]
    if superseding:
        supersede(connection, superseding, worker=worker)
    for each in settled:
        if each.asks is not None:
            ask(connection, each.asks, worker=worker)
    envelopes = [envelope for settlement in settled for envelope in settlement.follow_ups]
    accepted = _accept(connection, envelopes) if envelopes else []
    return dict(answers), accepted


def _accept(connection: Connection, envelopes: Sequence[Envelope]) -> list[Envelope]:
    try:
        answers = accept(connection, envelopes, rings=True)
    except KeyInFlight as error:
        if isinstance(error.__cause__, OperationalError):  # the group commit tries again, as for any locked row
            raise error.__cause__ from None
        raise
    refuse_conflicts(answers, envelopes)
    return [envelope for envelope, answer in zip(envelopes, answers, strict=True) if answer.due]
