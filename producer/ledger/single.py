"""Accepting one request at a time: those that threads ask for at the same time share a statement and a commit.

To its caller each is as if it were alone. A statement that is shared answers what it can without waiting; a request
that it leaves out, or all of them where one spoils it, is accepted by its own caller, on a connection of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from producer.envelope import Envelope
from producer.ledger.accept import Answer, accept, accept_together
from producer.ledger.engine import is_disconnect, retrying
from producer.together import Together

# Larger ones gain nothing by sharing a statement, which would hold megabytes.
SHARED_CHARACTERS = 16_384


class SingleAccepts:
    """Accepts a producer's single requests, on its own connections. Thread-safe, and usable after a fork."""

    def __init__(self, engine: Engine) -> None:
        """Connect nothing yet; the engine is in autocommit."""
        self._engine = engine
        self._together: Together[Envelope, Answer] = Together(self._accept_each)

    def accept(self, envelope: Envelope) -> Answer:
        """Accept a request, with what other threads ask for at the same time; see `producer.ledger.accept.accept`.

        Raises:
            KeyInFlight: If its key is being accepted by a transaction that does not end.
            LedgerUnavailable: If Postgres is away. Asking again with the same key is safe.
        """
        may_share = _characters(envelope) <= SHARED_CHARACTERS

        def once() -> Answer:
            nonlocal may_share
            if may_share:
                may_share = False  # further tries are its own
                answer = self._together.ask(envelope)
                if answer is not None:
                    return answer
            return self._accept_alone(envelope)

        return retrying(once)

    def _accept_alone(self, envelope: Envelope) -> Answer:
        with self._engine.connect() as connection:
            return accept(connection, [envelope], rings=True, prepared=True)[0]

    def _accept_each(self, envelopes: Sequence[Envelope]) -> Sequence[Answer | None]:
        if len(envelopes) == 1:
            return [self._accept_alone(envelopes[0])]
        try:
            with self._engine.connect() as connection:
                return accept_together(connection, envelopes)
        except Exception as error:
            if isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and is_disconnect(error)):
                raise  # as it would have met each of them alone
            return [None] * len(envelopes)  # one of them spoils it, or is waited for; which, each finds out


def _characters(envelope: Envelope) -> int:
    return len(envelope.params) + len(envelope.input or "") + len(envelope.reasoning or "")
