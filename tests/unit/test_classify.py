"""What errors mean, as docs/errors.md has it; shown on the libraries' own errors, and on an action's own word."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpcore
import httpx
import httpx2
import openai
import pytest

from producer.errors import SettingsError
from tasks import ActionError, Hold, InvalidAction, Policy, Refused, Retry, Unknown
from tasks._classify import (
    ERRORS,
    HTTP_STATUSES,
    SMTP_CODES,
    Meaning,
    Statuses,
    classify,
    error_of,
    meaning_of,
    meaning_of_code,
    meaning_of_status,
    unsent,
)
from tests.unit.markdown import table
from tests.unit.test_spec import plain, spec_of

URL = "http://127.0.0.1/"
REQUEST = httpx.Request("POST", URL)
MODEL_REQUEST = httpx2.Request("POST", URL)  # the SDK's own kind


def row(statuses: Statuses, name: str) -> dict[str, str]:
    span = str(statuses.first) if statuses.first == statuses.last else f"{statuses.first} to {statuses.last}"
    span += " that asks to wait" if statuses.with_wait else ""
    return {name: span, **words(statuses.meaning)}


def words(meaning: Meaning) -> dict[str, str]:
    return {"effect": meaning.effect, "advice": meaning.advice, "says": meaning.says.replace("nothing", "-")}


def test_the_page_has_every_error_as_the_code_has_it_in_order() -> None:
    expected = [
        {"error": name}
        | (dict.fromkeys(("effect", "advice", "says"), f"by {by}") if isinstance(by, str) else words(by))
        for name, by in ERRORS.items()
    ]
    assert table("errors.md", "error") == expected


def test_the_page_has_every_status_and_code_as_the_code_has_it_in_order() -> None:
    assert table("errors.md", "status") == [row(each, "status") for each in HTTP_STATUSES]
    assert table("errors.md", "code") == [row(each, "code") for each in SMTP_CODES]


@pytest.mark.parametrize("name", [name for name in ERRORS if not name.startswith("aiosmtplib")])
def test_every_error_that_is_named_is_there_under_that_name(name: str) -> None:
    module, _, kind = name.rpartition(".")
    error = getattr(sys.modules[module], kind)
    assert f"{error.__module__}.{error.__qualname__}" == name


def test_reading_the_tables_imports_nothing_that_they_name() -> None:
    code = (
        "import sys; from tasks._classify import meaning_of; meaning_of(ValueError());"
        " print(sorted({'openai', 'httpx', 'httpcore', 'smtplib'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- the libraries' own errors ---------------------------------------------------------------------------------


def status_error(status: int, **headers: str) -> httpx.HTTPStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, headers=named, request=REQUEST)
    return httpx.HTTPStatusError("answered", request=REQUEST, response=response)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def raised_by(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001  it is looked at
        return error
    raise AssertionError("nothing was raised")


def as_if_from(place: str, name: str, base: type[Exception] = Exception, **attributes: Any) -> Exception:
    """Make an error as a library that is not installed here would raise it."""
    error: Exception = type(name, (base,), {"__module__": place})()
    vars(error).update(attributes)
    return error


def redirected(status: int) -> httpx.HTTPStatusError:
    """Be refused by where one was redirected to."""
    error = status_error(status)
    assert isinstance(error, httpx.HTTPStatusError)
    error.response.history = [httpx.Response(303, request=error.request)]
    return error


def model_answered(status: int) -> openai.APIStatusError:
    return openai.APIStatusError("no", response=httpx2.Response(status, request=MODEL_REQUEST), body=None)


def ask_nobody() -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", max_retries=0)
    client.models.list()


def wait_for_nothing() -> None:
    asyncio.run(asyncio.wait_for(asyncio.sleep(1), 0))


def call_nobody() -> None:
    httpx.get("http://127.0.0.1:1/")


ERRORS_RAISED: dict[str, tuple[BaseException, str, str, float | None]] = {
    "httpx, a port that nobody listens on": (raised_by(call_nobody), "none", "retry", None),
    "httpx, an answer that does not come": (httpx.ReadTimeout("a"), "unknown", "retry", None),
    "httpx, a connection that breaks": (httpx.RemoteProtocolError("a"), "unknown", "retry", None),
    "httpx, ftp": (raised_by(lambda: httpx.get("ftp://127.0.0.1/")), "none", "refuse", None),
    "httpx, 429 in seconds": (status_error(429, retry_after="7"), "refused", "hold", 7.0),
    "httpx, 529": (status_error(529), "refused", "hold", None),
    "httpx, 503": (status_error(503), "unknown", "retry", None),
    "httpx, 503 that asks to wait": (status_error(503, retry_after="7"), "unknown", "hold", 7.0),
    "httpx, 500 that asks to wait": (status_error(500, retry_after="7"), "unknown", "retry", 7.0),
    "httpx, 404": (status_error(404), "refused", "refuse", None),
    "httpx, 409": (status_error(409), "unknown", "retry", None),
    "httpx, 502 not to be retried": (status_error(502, x_should_retry="false"), "unknown", "refuse", None),
    "httpx, 429 not to be retried": (status_error(429, x_should_retry="false"), "refused", "refuse", None),
    "httpx, 400 to be retried": (status_error(400, x_should_retry="true"), "unknown", "retry", None),
    "httpx, a redirect": (status_error(302), "unknown", "refuse", None),
    "httpx, a refusal after a redirect": (redirected(404), "unknown", "refuse", None),
    "httpcore, a port that nobody listens on": (
        raised_by(lambda: httpcore.request("GET", "http://127.0.0.1:1/")), "none", "retry", None,
    ),
    "openai, 429": (model_answered(429), "refused", "hold", None),
    "openai, 400": (model_answered(400), "refused", "refuse", None),
    "openai, 500": (model_answered(500), "unknown", "retry", None),
    "openai, not reached": (raised_by(ask_nobody), "none", "retry", None),
    "openai, not reached in time": (
        caused(openai.APITimeoutError(request=MODEL_REQUEST), httpx2.ConnectTimeout("a")), "none", "retry", None,
    ),
    "openai, no answer in time": (
        caused(openai.APITimeoutError(request=MODEL_REQUEST), httpx2.ReadTimeout("a")), "unknown", "retry", None,
    ),
    "openai, a connection that breaks": (
        caused(openai.APIConnectionError(request=MODEL_REQUEST), httpx2.ReadError("a")), "unknown", "retry", None,
    ),
    "openai, nobody knows why": (openai.APIConnectionError(request=MODEL_REQUEST), "unknown", "retry", None),
    "smtplib, put off": (smtplib.SMTPDataError(451, b"later"), "refused", "retry", None),
    "smtplib, refused": (smtplib.SMTPSenderRefused(550, b"no", "a@example.com"), "refused", "refuse", None),
    "smtplib, all recipients refused, one for good": (
        smtplib.SMTPRecipientsRefused({"a@b": (450, b"later"), "c@d": (550, b"no")}), "refused", "refuse", None,
    ),
    "smtplib, gone": (smtplib.SMTPServerDisconnected("a"), "unknown", "retry", None),
    "smtplib, not reached": (smtplib.SMTPConnectError(421, b"busy"), "none", "retry", None),
    "aiosmtplib, put off": (
        as_if_from("aiosmtplib.errors", "SMTPResponseException", code=451), "refused", "retry", None,
    ),
    "aiosmtplib, all recipients refused": (
        as_if_from(
            "aiosmtplib.errors", "SMTPRecipientsRefused",
            recipients=[as_if_from("aiosmtplib.errors", "SMTPRecipientRefused", code=550)],
        ), "refused", "refuse", None,
    ),
    "aiosmtplib, not reached in time": (
        as_if_from(
            "aiosmtplib.errors", "SMTPConnectTimeoutError",
            type(as_if_from("aiosmtplib.errors", "SMTPConnectError")),
        ), "none", "retry", None,
    ),
    "a name that does not resolve": (socket.gaierror(-2, "no such name"), "none", "retry", None),
    "a port that nobody listens on": (ConnectionRefusedError(), "none", "retry", None),
    "a certificate that is not trusted": (ssl.SSLCertVerificationError(), "none", "retry", None),
    "TLS that breaks": (ssl.SSLEOFError(), "unknown", "retry", None),
    "a connection reset": (ConnectionResetError(), "unknown", "retry", None),
    "asyncio's timeout": (raised_by(wait_for_nothing), "unknown", "retry", None),
    "anything else": (ValueError(), "unknown", "retry", None),
}  # fmt: skip


@pytest.mark.parametrize(("error", "effect", "advice", "after"), ERRORS_RAISED.values(), ids=ERRORS_RAISED)
def test_an_error_means_what_its_library_knew(
    error: BaseException, effect: str, advice: str, after: float | None
) -> None:
    meaning = meaning_of(error)
    assert (meaning.effect, meaning.advice, meaning.after) == (effect, advice, after)


def failed_by(call: Callable[..., Any], *given: Any) -> BaseException:
    """Return what Python says of a call that is wrong."""
    return raised_by(lambda: call(*given))


SAYS: dict[str, tuple[BaseException, str]] = {
    "a port that nobody listens on": (raised_by(call_nobody), "ill"),
    "an answer that does not come": (httpx.ReadTimeout("a"), "ill"),
    "ftp, which is not sent": (raised_by(lambda: httpx.get("ftp://127.0.0.1/")), "nothing"),
    "404": (status_error(404), "answered"),
    "404 after a redirect": (redirected(404), "answered"),
    "a redirect": (status_error(302), "answered"),
    "409": (status_error(409), "answered"),
    "409 to be retried": (status_error(409, x_should_retry="true"), "answered"),
    "400 to be retried": (status_error(400, x_should_retry="true"), "answered"),
    "429": (status_error(429), "nothing"),
    "429 not to be retried": (status_error(429, x_should_retry="false"), "nothing"),
    "500": (status_error(500), "ill"),
    "502 not to be retried": (status_error(502, x_should_retry="false"), "ill"),
    "503 that asks to wait": (status_error(503, retry_after="7"), "nothing"),
    "a model that answered 400": (model_answered(400), "answered"),
    "a mailbox that is busy": (smtplib.SMTPResponseException(450, b"later"), "answered"),
    "a mail server that goes down": (smtplib.SMTPResponseException(421, b"bye"), "ill"),
    "no such recipient": (smtplib.SMTPResponseException(550, b"no"), "answered"),
    "anything else": (ValueError("no JSON"), "ill"),
    "a name that is not there": (failed_by({}.__getitem__, "id"), "nothing"),
    "an argument that does not fit": (failed_by(len, 1), "nothing"),
    "an attribute of nothing": (failed_by(getattr, None, "id"), "nothing"),
    "a division by nothing": (failed_by(divmod, 1, 0), "nothing"),
    "a setting that is missing": (SettingsError("SUREFOOT_SMTP_URL is not set"), "nothing"),
    "a library's own kind of lookup": (as_if_from("lookup", "NobodyThere", LookupError), "ill"),
    "what ends a process": (SystemExit(), "nothing"),
    "an action's own word": (Retry("a"), "ill"),
    "an action's own no": (Refused("a"), "answered"),
    "an action's own patience": (Hold("a"), "nothing"),
    "what a shipped action did not send": (unsent("a"), "nothing"),
    "what a shipped action was answered": (error_of(meaning_of_status(409, {}), "a"), "answered"),
}


@pytest.mark.parametrize(("error", "says"), SAYS.values(), ids=SAYS)
def test_an_error_says_of_whom_was_called_what_is_known_whatever_becomes_of_the_job(
    error: BaseException, says: str
) -> None:
    assert said_by(error, one_call=True) == said_by(error, one_call=False) == says


def test_of_kinds_that_only_the_policy_knows_those_that_it_does_not_try_again_say_nothing() -> None:
    assert said_by(Busy()) == "ill"
    assert said_by(Busy(), policy=Policy(dont_autoretry_for=(Busy,))) == "nothing"
    assert said_by(Busy(), policy=Policy(autoretry_for=(OSError,))) == "nothing"


def test_what_a_policy_says_of_trying_again_changes_nothing_where_the_tables_know_the_error() -> None:
    assert said_by(httpx.ReadTimeout("a"), policy=Policy(dont_autoretry_for=(httpx.ReadTimeout,))) == "ill"
    assert said_by(status_error(404), policy=Policy(autoretry_for=(httpx.HTTPStatusError,))) == "answered"


def test_an_action_that_knows_better_has_the_last_word() -> None:
    assert said_by(KeyError("id"), classify={KeyError: Retry}) == "ill"
    assert said_by(Busy(), classify={Busy: Refused}) == "answered"


def said_by(error: BaseException, **declared: Any) -> str:
    return classify(error, spec_of(plain, **declared)).says


@pytest.mark.parametrize(("code", "advice"), [(451, "retry"), (550, "refuse")])
def test_a_mail_server_s_code_is_read(code: int, advice: str) -> None:
    assert meaning_of_code(code) == Meaning("refused", advice)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("code", [0, 250, 354, 600])
def test_a_code_that_is_no_refusal_settles_nothing(code: int) -> None:
    assert meaning_of_code(code) == Meaning("unknown", "retry")


@pytest.mark.parametrize("status", [0, 100, 299, 600, 999])
def test_a_status_that_is_none_settles_nothing(status: int) -> None:
    assert meaning_of_status(status, {}) == Meaning("unknown", "retry")


@pytest.mark.parametrize("meaning", sorted({(m.effect, m.advice) for m in ERRORS.values() if isinstance(m, Meaning)}
    | {(each.meaning.effect, each.meaning.advice) for each in (*HTTP_STATUSES, *SMTP_CODES)}))  # fmt: skip
def test_an_action_can_say_of_itself_whatever_the_tables_say(meaning: tuple[str, str]) -> None:
    said = error_of(Meaning(*meaning, 3.0), "a")  # type: ignore[arg-type]  # as above
    assert (said.effect, said.advice, said.after, str(said)) == (*meaning, 3.0, "a")


# ---- raised through an action ----------------------------------------------------------------------------------


def means(error: BaseException, policy: Policy | None = None, **declared: Any) -> tuple[str, str, float | None]:
    failure = classify(error, spec_of(plain, policy=policy, **declared))
    return failure.effect, failure.advice, failure.after


def test_of_an_action_that_makes_one_call_what_is_known_of_the_call_is_known() -> None:
    assert means(httpx.ConnectError("a"), one_call=True) == ("none", "retry", None)
    assert means(status_error(404), one_call=True) == ("refused", "refuse", None)


def test_of_an_action_that_may_make_several_an_earlier_one_may_have_worked() -> None:
    assert means(httpx.ConnectError("a")) == ("unknown", "retry", None)
    assert means(status_error(404)) == ("unknown", "refuse", None)
    assert means(status_error(429, retry_after="3")) == ("unknown", "hold", 3.0)


class Declined(Exception):
    """A library's own error."""


class DeclinedForGood(Declined):
    """One of its kinds."""


class Busy(Exception):
    """Another, which says for how long."""

    seconds = 4.0


OWN = {Declined: Retry, DeclinedForGood: Refused("it said no"), Busy: Hold(after=9), TimeoutError: Refused}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Declined(), ("none", "retry", None)),
        (DeclinedForGood(), ("refused", "refuse", None)),
        (Busy(), ("none", "hold", 9.0)),
        (TimeoutError(), ("refused", "refuse", None)),
        (ConnectionResetError(), ("unknown", "retry", None)),
    ],
    ids=["named", "the nearest kind counts", "with a wait", "before the tables", "not named"],
)
def test_an_action_s_own_table_goes_first(error: Exception, expected: tuple[str, str, float | None]) -> None:
    assert means(error, classify=OWN) == expected


def test_an_action_s_own_function_may_say_how_long_to_wait_or_leave_it_to_the_tables() -> None:
    def own(error: BaseException) -> ActionError | None:
        return Hold(after=error.seconds) if isinstance(error, Busy) else None

    assert means(Busy(), classify=own) == ("none", "hold", 4.0)
    assert means(httpx.ConnectError("a"), classify=own, one_call=True) == ("none", "retry", None)


@pytest.mark.parametrize("own", [lambda _: 1 / 0, lambda _: "retry", lambda _: ValueError])
def test_a_function_that_goes_wrong_leaves_it_to_the_tables(own: Callable[[BaseException], Any]) -> None:
    assert means(httpx.ConnectError("a"), classify=own, one_call=True) == ("none", "retry", None)


def test_the_error_is_recorded_as_it_was_whatever_it_is_taken_for() -> None:
    failure = classify(Declined("card 4242"), spec_of(plain, classify={Declined: Refused("in other words")}))
    assert (failure.error["type"], failure.error["message"]) == ("Declined", "card 4242")


def test_an_action_s_own_raise_goes_before_its_table() -> None:
    assert means(Unknown("a"), classify={ActionError: Refused}) == ("unknown", "retry", None)


def test_only_what_the_policy_names_is_tried_again() -> None:
    assert means(OSError(), Policy(autoretry_for=(ValueError,)))[1] == "refuse"
    assert means(ValueError(), Policy(autoretry_for=(ValueError,)))[1] == "retry"
    assert means(Busy(), Policy(dont_autoretry_for=(Busy,)))[1] == "refuse"


def test_a_hold_stays_one_whatever_is_tried_again_unless_the_policy_names_it_as_not_to_be() -> None:
    busy = status_error(429, retry_after="7")
    assert means(busy, Policy(autoretry_for=(httpx.ConnectError,)))[1:] == ("hold", 7.0)
    assert means(busy, Policy(dont_autoretry_for=(httpx.HTTPStatusError,)))[1] == "refuse"


def test_a_kind_that_the_policy_names_is_tried_again_although_the_table_refuses_it() -> None:
    assert means(httpx.InvalidURL("a"))[1] == "refuse"
    assert means(httpx.InvalidURL("a"), Policy(autoretry_for=(httpx.InvalidURL,)))[1] == "retry"


@pytest.mark.parametrize(
    "own", [5, Refused, {"ConnectError": Retry}, {OSError: "retry"}, {OSError: ValueError}, [Retry]]
)
def test_what_is_no_table_is_refused_when_declared(own: Any) -> None:
    with pytest.raises(InvalidAction, match=r"classify="):
        spec_of(plain, classify=own)
