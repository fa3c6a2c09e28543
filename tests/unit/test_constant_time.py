"""What is compared with a secret tells nobody by the time that it takes how much of a guess was right.

Three proofs, of which the first two ask no clock. The path: a guess that is right but for its last character takes,
opcode by opcode, the same way through our code as one that is wrong from its first. The comparison: it is one call of
`hmac.compare_digest`, of texts or digests of one length. And the clock, as dudect reads it
(https://eprint.iacr.org/2016/1123): guesses of both kinds come in random order, so that whatever else this machine does
falls on both alike; the same measurement has to find a comparison that does leak.
"""

from __future__ import annotations

import hmac
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest

from producer import keys, tokens
from producer.api.console import sessions
from producer.errors import TokenRefused
from producer.keys import Keys, hash_of, is_secret_of
from producer.ledger.keys import ApiKey

ID, SECRET = "k" * 12, "Secret0123456789abcdefghijklmnopqrstuvwxyzA"
RECORD = ApiKey(
    id=ID,
    tenant="default",
    name="billing",
    scopes=("read",),
    rate_per_second=10.0,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    created_by="ada",
    expires_at=None,
    revoked_at=None,
    revoked_by=None,
    standing="active",
)
SIGNING = "a key for the tests, and long enough"

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
CALLS = 20_000
# dudect's: beyond it, two kinds are told apart. By chance one measurement in 100,000 goes so far, and never all three.
TOLD_APART = 4.5
MEASUREMENTS = 3
# The slowest are interruptions, of both kinds alike.
KEPT = 0.9

Check = Callable[[str], object]


def wrong_from(place: int, secret: str = SECRET) -> str:
    """A guess that is right up to a place, and wrong from there on."""
    return secret[:place] + "".join("b" if each == "a" else "a" for each in secret[place:])


def identify(guess: str) -> object:
    """Check a key as the API does; what the ledger has of it is at hand."""
    return Keys("default", lambda _: (RECORD, hash_of(SECRET))).identify(f"sf_{ID}_{guess}")


def identify_nobody(guess: str) -> object:
    """Check a key that the ledger has nothing of."""
    return Keys("default", lambda _: None).identify(f"sf_{ID}_{guess}")


SESSIONS = sessions.Sessions("a secret for the tests", seconds=1e9, clock=lambda: 0.0)
SESSION_BODY, _, SESSION_SIGNATURE = SESSIONS.begin(ID).rpartition(".")
TOKEN_BODY, _, TOKEN_SIGNATURE = tokens.sign({"person": "ben"}, SIGNING).rpartition(".")


def open_session(guess: str) -> object:
    return SESSIONS.key_of(f"{SESSION_BODY}.{guess}")


def use_token(guess: str) -> object:
    try:
        return tokens.claims_of(f"{TOKEN_BODY}.{guess}", SIGNING)
    except TokenRefused:
        return None


CHECKS: dict[str, tuple[Check, str, Any]] = {
    "an API key": (identify, SECRET, keys),
    "a key that is not there": (identify_nobody, SECRET, keys),
    "a session's signature": (open_session, SESSION_SIGNATURE, sessions),
    "a link's signature": (use_token, TOKEN_SIGNATURE, tokens),
}
table = pytest.mark.parametrize(("check", "secret", "module"), CHECKS.values(), ids=CHECKS)


def path_of(work: Callable[[], object], module: Any) -> list[tuple[CodeType, int]]:
    """Every opcode of a module that runs meanwhile, in order."""
    taken: list[tuple[CodeType, int]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            taken.append((frame.f_code, frame.f_lasti))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return taken


@table
def test_a_guess_takes_the_same_way_however_much_of_it_is_right(check: Check, secret: str, module: Any) -> None:
    for place in range(len(secret)):  # what is remembered of patterns, and specialised of opcodes, is so for all
        check(wrong_from(place, secret))
    path_of(partial(check, wrong_from(0, secret)), module)  # in the first, Python 3.12.1 sees no opcode
    paths = [path_of(partial(check, wrong_from(place, secret)), module) for place in range(len(secret))]
    assert len(paths[0]) > 20
    assert [place for place, path in enumerate(paths) if path != paths[0]] == []


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, Any]]]:
    """What is compared in constant time meanwhile."""
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    with monkeypatch.context() as patched:
        patched.setattr(hmac, "compare_digest", compare)
        yield compared


@table
def test_a_guess_is_compared_once_as_a_whole_and_in_constant_time(
    check: Check, secret: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.hmac is hmac
    for place in (0, 1, len(secret) - 1):
        with watched(monkeypatch) as compared:
            assert check(wrong_from(place, secret)) is None
        ((one, other),) = compared  # the length of one, which it does tell, is the same for all
        assert len(one) == len(other)
        assert type(one) is type(other)


def test_of_a_key_only_the_digest_of_all_of_it_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for guess in (SECRET, wrong_from(42), wrong_from(0)):
        with watched(monkeypatch) as compared:
            identify(guess)
        assert compared == [(hash_of(guess), hash_of(SECRET))]
    with watched(monkeypatch) as compared:
        identify_nobody(SECRET)
    assert compared == [(hash_of(SECRET), bytes(32))]


def test_no_clock_tells_a_guess_that_is_nearly_right_from_one_that_is_wrong_at_once() -> None:
    secret_hash = hash_of(SECRET)
    scores = [score_of(lambda guess: is_secret_of(guess, secret_hash), seed) for seed in range(MEASUREMENTS)]
    assert min(map(abs, scores)) < TOLD_APART, scores


def test_the_same_clock_finds_a_comparison_that_stops_at_the_first_difference() -> None:
    def leaks(guess: str) -> bool:
        return all(one == other for one, other in zip(guess, SECRET, strict=True))

    scores = [score_of(leaks, seed) for seed in range(MEASUREMENTS)]
    assert min(map(abs, scores)) > TOLD_APART, scores


def score_of(check: Check, seed: int) -> float:
    """Welch's t of the times that guesses take which are nearly right, and others that are wrong from the first."""
    drawn = random.Random(seed)  # noqa: S311  nothing is kept secret by it
    near = [SECRET[:42] + drawn.choice(LETTERS.replace(SECRET[42], "")) for _ in range(CALLS // 2)]
    far = [drawn.choice(LETTERS.replace(SECRET[0], "")) + "".join(drawn.choices(LETTERS, k=42)) for _ in near]
    guesses = [*((0, guess) for guess in near), *((1, guess) for guess in far)]
    drawn.shuffle(guesses)
    clock, taken = time.perf_counter_ns, []
    for kind, words in guesses:
        guess = words[:1] + words[1:]  # made just now, so that none lies farther away than another
        began = clock()
        check(guess)
        taken.append((clock() - began, kind))
    longest = sorted(taken)[int(CALLS * KEPT)][0]
    return welch(*([seconds for seconds, kind in taken if kind == one and seconds <= longest] for one in (0, 1)))


def welch(one: Sequence[int], other: Sequence[int]) -> float:
    """How far two means lie apart, as measured by what they scatter."""
    means = [math.fsum(each) / len(each) for each in (one, other)]
    spreads = [
        math.fsum((value - mean) ** 2 for value in each) / (len(each) - 1) / len(each)
        for each, mean in zip((one, other), means, strict=True)
    ]
    return (means[0] - means[1]) / (math.sqrt(sum(spreads)) or 1.0)
