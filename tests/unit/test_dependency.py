"""What may be declared of a dependency, in which words it is refused, and by which name its breaker goes."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import Dependency, InvalidAction, action, declare
from tasks import _dependency as dependencies
from tasks import _registry as registry
from tasks._dependency import breaker_of, dependency_named
from tests.unit.test_spec import plain, spec_of
from worker.breakers import doubts

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "_declared", {})
    monkeypatch.setattr(registry, "_actions", {})


@pytest.mark.parametrize("name", ["", "  ", None, 7, "a\nb", "x" * 201, "\ud800"], ids=ascii)
def test_what_is_no_name_is_refused_with_one_that_is(name: Any) -> None:
    with pytest.raises(InvalidAction, match="is not a dependency's name; write one such as 'llm'"):
        Dependency(name=name)
    if name:
        with pytest.raises(InvalidAction, match="is not a dependency's name"):
            spec_of(plain, dependency=name)


@pytest.mark.parametrize("word", ["fail_max", "min_calls", "success_threshold"])
@pytest.mark.parametrize("count", [0, -1, 1.0, NAN, "3", True, 10**7], ids=repr)
def test_what_is_no_number_of_calls_is_refused(word: str, count: Any) -> None:
    with pytest.raises(InvalidAction, match=rf"^dependency llm: {word}=.* must be a whole number from 1 to 1000000"):
        Dependency(**dict[str, Any]({"name": "llm", word: count}))


@pytest.mark.parametrize(
    ("word", "largest"),
    [
        ("failure_rate", "1"),
        ("slow_rate", "1"),
        ("window_seconds", "86400"),
        ("slow_call_seconds", "86400"),
        ("recovery_seconds", "86400"),
        ("recovery_max_seconds", "86400"),
        ("release_per_second", r"1e\+06"),
    ],
)
@pytest.mark.parametrize("number", [0, -1, NAN, INFINITY, "1", True, 10**400], ids=lambda n: repr(n)[:8])
def test_what_is_no_number_that_can_be_kept_is_refused(word: str, largest: str, number: Any) -> None:
    with pytest.raises(InvalidAction, match=rf"^dependency llm: {word}=.* must be more than 0 and at most {largest}"):
        Dependency(**dict[str, Any]({"name": "llm", word: number}))


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"without_redis": "hold"}, "without_redis='hold' is none of local, reject, allow"),
        ({"exclude": [ValueError]}, "must be a tuple of exceptions or functions of one"),
        ({"exclude": ("ValueError",)}, "must be a tuple of exceptions or functions of one"),
        ({"per": "tenant"}, "must be a tuple of names, such as ('tenant', 'model')"),
        ({"recovery_seconds": 60, "recovery_max_seconds": 30}, "must be 60 or more, the first recovery"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_what_cannot_work_is_refused_in_words(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidAction) as caught:
        Dependency(**dict[str, Any](name="llm") | declared)
    assert problem in str(caught.value)


def test_a_name_that_nobody_declared_has_the_defaults_of_the_source_article() -> None:
    found = dependency_named("llm")
    assert (found.fail_max, found.recovery_seconds, found.success_threshold) == (5, 60.0, 1)
    assert found.longest_recovery == 90


def test_a_rule_may_be_left_out_and_without_any_only_an_operator_opens_it() -> None:
    assert Dependency(name="llm", fail_max=None).breaks
    assert not Dependency(name="llm", fail_max=None, failure_rate=None).breaks


def test_two_declarations_of_one_name_that_differ_are_refused_and_the_same_again_is_not() -> None:
    first = declare(Dependency(name="llm", fail_max=3))
    assert declare(Dependency(name="llm", fail_max=3)) is first
    with pytest.raises(InvalidAction, match="dependency llm is declared twice, with another fail_max, per;"):
        declare(Dependency(name="llm", fail_max=4, per=("tenant",)))


def test_an_action_declares_its_dependency_and_others_that_name_it_go_by_that() -> None:
    @action("test.one", effect="pure", dependency=Dependency(name="llm", fail_max=3))
    def one() -> None: ...

    @action("test.other", effect="pure", dependency="llm")
    def other() -> None: ...

    specs = registry._actions  # noqa: SLF001  what the test is about
    assert specs["test.other"].breaker_of("acme", {})[1].fail_max == 3
    assert specs["test.one"].dependency_of({}) == "llm"
    with pytest.raises(InvalidAction, match="declared twice"):
        action("test.third", effect="pure", dependency=Dependency(name="llm"))(other)


def test_a_breaker_is_kept_apart_by_tenant_and_parameters_where_that_is_asked_for() -> None:
    apart = Dependency(name="llm", per=("tenant", "model"))
    assert breaker_of(Dependency(name="llm"), "acme", {"model": "small"}) == "llm"
    assert breaker_of(apart, "acme", {"model": "small"}) == "llm tenant=acme model=small"
    assert breaker_of(apart, "acme", {}) == "llm tenant=acme model=None"


def test_no_value_makes_a_breaker_s_name_too_long_or_one_that_moves_a_terminal() -> None:
    apart = Dependency(name="x" * 190, per=("model",))
    for value in ("y" * 1_000, "\x1b[2J", "a\nb", "\ud800"):
        name = breaker_of(apart, "acme", {"model": value})
        assert len(name) <= 200
        assert name.isprintable()


@pytest.mark.parametrize("word", ["api_key", "password", "customerToken", "access-key", "iban"])
def test_what_is_a_secret_by_its_name_must_not_be_what_breakers_are_told_apart_by(word: str) -> None:
    with pytest.raises(InvalidAction, match=r"names a secret, and everybody may read a breaker's name; take"):
        Dependency(name="llm", per=("tenant", word))


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("sk-proj-abcdefghijklmnop1234", "sk-proj"),
        ("4111 1111 1111 1111", "1111"),
        ("https://ada:hunter2@example.com/x", "hunter2"),
        (f"{'x' * 50} sk-proj-abcdefghijklmnop1234", "sk-"),
        (f"eyJ{'a' * 50}.{'b' * 50}.{'c' * 50}", "eyJ"),
        ({"password": "hunter2"}, "hunter2"),
    ],
    ids=["a key", "a card", "a URL", "where the name ends", "longer than the name", "within"],
)
def test_what_looks_like_a_secret_is_in_no_breaker_s_name_wherever_it_comes_from(value: Any, secret: str) -> None:
    apart = Dependency(name="llm", per=("tenant", "model"))
    assert secret not in breaker_of(apart, "acme", {"model": value})
    assert secret not in breaker_of(apart, str(value), {})
    assert secret not in breaker_of(Dependency(name=f"http {value}"[:200]), "acme", {})  # as a function of params says


@pytest.mark.parametrize(
    ("declared", "problem"), [("wait", "is none of hold, degrade"), ("degrade", "needs fallback=")]
)
def test_what_cannot_become_of_a_job_while_it_is_open_is_refused(declared: str, problem: str) -> None:
    with pytest.raises(InvalidAction, match=problem):
        spec_of(plain, on_open=declared)


def test_while_it_is_open_jobs_degrade_where_there_is_a_fallback_and_else_wait() -> None:
    assert spec_of(plain).on_open == "hold"
    assert spec_of(plain, fallback=1).on_open == "degrade"
    assert spec_of(plain, fallback=1, on_open="hold").on_open == "hold"


def test_without_a_redis_for_the_broker_what_would_never_run_is_doubtful_before_it_does() -> None:
    specs = {
        "a": spec_of(plain, dependency=declare(Dependency(name="llm", without_redis="reject"))),
        "b": spec_of(plain),
    }
    assert doubts("redis://there/0", specs) == []
    assert doubts("amqp://there//", specs) == [
        "dependency llm has a breaker that takes a Redis as the broker: nothing that calls it will ever run"
    ]
