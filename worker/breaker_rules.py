"""One breaker in this process's memory, for as long as Redis is away: the rules of producer/breaker_scripts.py again.

A test holds the two to the same answers. There is no operator here, and nobody else whose call could try. Nor is there
anybody who lets go those that wait once it closes: they come back by themselves, one by one, as they would be let go.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from producer.breaker_scripts import BUCKETS, FEWEST_TIMES, LETS_PASS, LONGEST_LINE_MS, LONGEST_MS, PROBING_MS
from producer.breaker_words import CLOSED, HALF_OPEN, OPEN
from tasks import Dependency
from worker.breaker_answers import ADMITTED, PROBES, REFUSED, Answer, Move, Seen


@dataclass(slots=True)
class _Bucket:
    number: int = -1
    ok: int = 0
    bad: int = 0
    slow: int = 0


@dataclass(slots=True)
class Rules:
    """The state of one breaker. Times are milliseconds of any clock that does not go back."""

    dependency: Dependency
    state: str = CLOSED
    epoch: int = 0
    until: int = 0
    opens: int = 0
    token: str = ""
    lease: int = 0
    passed: int = 0
    by: str = ""
    failed: int = 0
    asked_until: int = 0
    line: float = 0
    job: str = ""
    window: list[_Bucket] = field(default_factory=lambda: [_Bucket() for _ in range(BUCKETS)])
    moves: list[Move] = field(default_factory=list)
    _whose: str = ""

    def admit(self, now: int, token: str, lease_ms: int, *, parks: bool, job: str = "") -> Answer:
        """Say whether a call may go; `job` is whose it is."""
        if self.state == CLOSED:
            return self._answer(ADMITTED)
        if self.state == OPEN:
            if now < self.until:
                if parks and job and job == self.job:
                    return self._answer(REFUSED, int((self.until - now) * (1 + LETS_PASS)))
                return self._refuse(now, self.until - now, parks=parks)
            self._move(now, HALF_OPEN, "the recovery time is over", job)
        if self.token in ("", token) or now >= self.lease:
            self.token, self.lease = token, now + lease_ms
            return self._answer(PROBES)
        return self._refuse(now, max(100, min(self.lease - now, PROBING_MS)), parks=parks)

    def record(self, now: int, seen: Seen, *, jitter: float, job: str = "") -> Answer:
        """Take note of a call; `job` is whose it was."""
        self._whose = job
        asked_until = now + min(seen.asked_ms, LONGEST_MS) if seen.asked_ms else 0
        if self.state == HALF_OPEN:
            self._probed(now, seen, asked_until, jitter=jitter)
        elif self.state == OPEN:
            self.until = max(self.until, asked_until)
        elif seen.epoch >= self.epoch:
            self._count(now, seen)
            self.asked_until = max(self.asked_until, asked_until)
            reason = self._too_bad(now) if seen.bad or seen.slow else None
            if reason is not None:
                self._open(now, reason, 0, jitter=jitter)
        return self._answer(REFUSED)

    def _probed(self, now: int, seen: Seen, asked_until: int, *, jitter: float) -> None:
        lost = seen.token != self.token
        if not seen.token:
            return
        if not lost:
            self.token, self.lease = "", 0
        if seen.epoch < self.epoch or (lost and (not seen.ok or seen.slow) and self.token and now < self.lease):
            return
        if seen.bad or seen.slow:
            reason = "the probe failed" if seen.bad else "the probe was slow"
            self._open(now, reason, asked_until, jitter=jitter)
            return
        if not seen.ok or seen.token == self.by:
            return
        self.passed, self.by = self.passed + 1, seen.token
        threshold = self.dependency.success_threshold
        if self.passed >= threshold:
            self.until = self.opens = self.failed = self.asked_until = 0
            self.window = [_Bucket() for _ in range(BUCKETS)]
            self._move(now, CLOSED, f"{self.passed} probes succeeded" if threshold > 1 else "the probe succeeded")

    def _count(self, now: int, seen: Seen) -> None:
        current = now // self.bucket_ms
        for age, count in seen.ok:
            if (bucket := self._bucket(current, age)) is not None:
                bucket.ok += count
        if seen.bad or seen.slow:
            latest = self._bucket(current, 0)
            if latest is not None:
                latest.bad += seen.bad
                latest.slow += seen.slow
        self.failed = (0 if seen.ok else self.failed) + seen.bad

    def _bucket(self, current: int, age: int) -> _Bucket | None:
        number = current - age
        place = number % BUCKETS
        if age >= BUCKETS or self.window[place].number > number:
            return None
        if self.window[place].number < number:
            self.window[place] = _Bucket(number)
        return self.window[place]

    def _too_bad(self, now: int) -> str | None:
        declared, current = self.dependency, now // self.bucket_ms
        if declared.fail_max is not None and self.failed >= declared.fail_max:
            return f"{self.failed} failures in a row"
        seen = [bucket for bucket in self.window if bucket.number >= 0 and current - bucket.number < BUCKETS]
        bad, slow = sum(bucket.bad for bucket in seen), sum(bucket.slow for bucket in seen)
        total = bad + sum(bucket.ok for bucket in seen)
        if total < declared.min_calls:
            return None
        if declared.failure_rate is not None and bad >= declared.failure_rate * total:
            return f"{bad} of {total} calls failed"
        if declared.slow_call_seconds is not None and slow >= declared.slow_rate * total:
            return f"{slow} of {total} calls were slow"
        return None

    def _open(self, now: int, reason: str, asked_until: int, *, jitter: float) -> None:
        longest, recovery = self.dependency.longest_recovery * 1000, self.dependency.recovery_seconds * 1000
        stays = min(longest, recovery * 2.0 ** min(self.opens, 62)) * (1 + jitter / 5)
        self.opens += 1
        self.until = int(max(now + stays, asked_until, self.asked_until))
        self._move(now, OPEN, reason)

    def _move(self, now: int, becomes: str, reason: str, job: str | None = None) -> None:
        was, self.state = self.state, becomes
        self.job = self._whose if job is None else job
        self.epoch = max(self.epoch + 1, now)
        self.token, self.lease, self.passed = "", 0, 0
        if becomes == CLOSED:
            self.line = 0
        self.moves.append(Move(was=was, becomes=becomes, epoch=self.epoch, reason=reason))

    def _refuse(self, now: int, wait_ms: float, *, parks: bool) -> Answer:
        if not parks:
            return self._answer(REFUSED, int(wait_ms))
        first = now + wait_ms
        self.line = _behind(first, self.line, self.gap_ms)
        return self._answer(REFUSED, int(self.line - now))

    def _answer(self, decision: int, wait_ms: int = 0) -> Answer:
        moves, self.moves = tuple(self.moves), []
        return Answer(
            decision=decision,
            state=self.state,
            epoch=self.epoch,
            wait_ms=wait_ms,
            failed=self.failed,
            passed=self.passed,
            moves=moves,
        )

    @property
    def bucket_ms(self) -> int:
        """How long a bucket of the window is, in milliseconds."""
        return bucket_ms(self.dependency)

    @property
    def gap_ms(self) -> float:
        """How far apart the jobs that wait come back, in milliseconds."""
        return 1000 / self.dependency.release_per_second


def _behind(first: float, last: float, gap: float) -> float:
    place = max(first, last + gap)
    return first if place > first + max(LONGEST_LINE_MS, min(FEWEST_TIMES * gap, LONGEST_MS)) else place


def bucket_ms(dependency: Dependency) -> int:
    """Return how long a bucket of the window is, in milliseconds."""
    return max(1, round(dependency.window_seconds * 1000 / BUCKETS))
