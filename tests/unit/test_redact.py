"""What people and logs get to see: no secret, and everything else. Every secret here is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producer.redact import _SEARCHES, REDACTED, redact, redact_text
from tests.unit.json_values import CANARY, values

KEY = "4f9Ha72Lq0Zx81Wm5Kc3"  # a run of letters and digits as keys have them
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK{KEY}\n{KEY}\n-----END RSA PRIVATE KEY-----"
CARD = "4111111111111111"  # the payment industry's own test number
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SECRETS = {
    "OpenAI key": (f"using sk-proj-{KEY}-{KEY[:5]}_x now", "using [redacted] now"),
    "Anthropic key": (f"sk-ant-api03-{KEY}_{KEY}-AA", "[redacted]"),
    "Stripe key": (f"sk_live_{KEY}.", "[redacted]."),
    "Amazon key id": (f"AKIA{KEY[:16].upper()}", "[redacted]"),
    "Google key": (f"AIza{(KEY * 2)[:35]}", "[redacted]"),
    "GitHub token": (f"https://x.example/?t=ghp_{KEY}&b=1", "https://x.example/?t=[redacted]&b=1"),
    "GitHub fine-grained token": (f"github_pat_11A_{KEY}_{KEY}", "[redacted]"),
    "GitLab token": (f"glpat-{KEY}", "[redacted]"),
    "Hugging Face token": (f"hf_{KEY}", "[redacted]"),
    "Slack token": (f"xoxb-1234-{KEY}", "[redacted]"),
    "webhook secret": (f"whsec_{KEY}+/=", "[redacted]"),
    "JSON web token": (f"got {JWT}!", "got [redacted]!"),
    "private key": (f"key:\n{PEM}\nend", "key:\n[redacted]\nend"),
    "private key, cut off": (PEM[:70], "[redacted]"),
    "private key in JSON": (json.dumps(PEM), '"[redacted]"'),
    "bearer token": (f"Bearer {KEY}", "Bearer [redacted]"),
    "bearer token in mixed case": ("bearer abcdefGhijkl", "bearer [redacted]"),
    "basic credentials": ("basic dXNlcjpwYXNzd29yZA==", "basic [redacted]"),
    "authorization header": (f"Authorization: Bearer {KEY}\nHost: x", "Authorization: [redacted]\nHost: x"),
    "authorization header, plain word": ("authorization: bearer opensesame", "authorization: [redacted]"),
    "cookie header": (f"Cookie: a={KEY}; b=2\r\nHost: x", "Cookie: [redacted]\r\nHost: x"),
    "password in a URL": ("postgresql://app:hunter2@db:5432/x", "postgresql://app:[redacted]@db:5432/x"),
    "password with @ in a URL": ("redis://:hun@ter2@cache/0", "redis://:[redacted]@cache/0"),
    "password in a URL in JSON": ('{"u":"amqp://a:hunter2@b","v":1}', '{"u":"amqp://a:[redacted]@b","v":1}'),
    "named in a form": ("user=a&password=hunter2&x=1", "user=a&password=[redacted]&x=1"),
    "named in JSON": ('{"api_key": "hunter2", "a": 1}', '{"api_key": "[redacted]", "a": 1}'),
    "named in JSON, with a quote in it": (r'{"password":"hun\"ter2","a":1}', '{"password":"[redacted]","a":1}'),
    "named in JSON within JSON": (r'"{\"password\": \"hunter2\"}"', r'"{\"password\": \"[redacted]\"}"'),
    "named in Python": ("{'client_secret': 'hunter2'}", "{'client_secret': '[redacted]'}"),
    "named in camel case": ("accessToken=hunter2, a=1", "accessToken=[redacted], a=1"),
    "named, with a suffix": ("SECRET_KEY_BASE: hunter2", "SECRET_KEY_BASE: [redacted]"),
    "named object": ("credentials={'user': 'a', 'pw': 'hunter2'}, a=1", "credentials=[redacted], a=1"),
    "named tuple": ("secrets: ('hunter2', 'hunter3')", "secrets: [redacted]"),
    "named, like null": ("password=null-island", "password=[redacted]"),
    "named, beginning as a structure": ("password={hunter2 a=1", "password=[redacted] a=1"),
    "named list": ("passwords=['hunter2', 'hunter3']", "passwords=[redacted]"),
    "one-time password": ("otp_token: 493817", "otp_token: [redacted]"),
    "card number": (f"card {CARD}.", "card [redacted]."),
    "card number in groups": ("4111 1111 1111 1111, thanks", "[redacted], thanks"),
    "card number with hyphens": ("(5500-0000-0000-0004)", "([redacted])"),
    "American Express": ("3782 822463 10005", "[redacted]"),
}

HARMLESS = [
    "order 1234567890123456 and invoice 2025-00012345",
    "order-4111111111111111",
    "4111111111111112 has another check digit",
    "0.4111111111111111 and 4111111111111111.5",
    "1719859200000 and 1719859200000000000",  # moments, in milli- and nanoseconds
    "0197b1c2-7d3e-7abc-8def-0123456789ab",
    "41111111-1111-1111-8111-111111111111",
    TRACE,
    "2025-03-01T23:30:00.000000Z to 2025-03-02 12:00:00",
    "+49 30 1234 5678 9012",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "tokens: 512, max_tokens=4096, tokens_in=12, token_count: 7, total_tokens = 1,024",
    "tokens: {'in': 12, 'out': 3}",
    "tokenize: yes; tokenizer=cl100k_base; detokenized: true",
    "the secretary: Jane; passwordless: sure; compass=north",
    "a basic understanding, basic authentication, the bearer instruments",
    "sk-learn-pipeline and sk-SK locale",
    "Unexpected token < in JSON at position 0",
    "password=None, token: null, secret = false",
    "http://localhost:8080/path?email=a@example.com",
    "mailto:a@example.com",
    "idempotency_key=invoice-7, request_id: r-42",
]


@pytest.mark.parametrize(("text", "shown"), SECRETS.values(), ids=SECRETS)
def test_a_secret_is_taken_out_of_text_and_nothing_else_is(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("password", "Password", "db_password", "passwd", "pwd", "passphrase", "secret", "client_secret", "token"),
        *("access_token", "refreshToken", "accessToken", "tokens", "api_key", "apiKey", "apikey", "X-Api-Key"),
        *("Authorization", "Set-Cookie", "cookies", "credentials", "private_key", "privateKey", "session_id"),
        *("AWS_SECRET_ACCESS_KEY", "cvv", "ssn", "iban", "pin", "otp"),
    ],
)
def test_text_under_a_secret_name_is_hidden(name: str) -> None:
    assert redact({name: CANARY}) == {name: REDACTED}


@pytest.mark.parametrize(
    "name", ["tokenize", "secretary", "compass", "passenger", "idempotency_key", "key", "author", "spin", "to"]
)
def test_text_under_another_name_stays(name: str) -> None:
    assert redact({name: "plain words"}) == {name: "plain words"}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"tokens_in": 12, "max_tokens": 4096, "token_count": 7.0}, id="counts of tokens"),
        pytest.param({"pass_rate": 0.97}, id="a rate"),
        pytest.param({"usage": {"tokens": {"in": 12, "out": 3}}}, id="counts, deeper"),
        pytest.param({"password": None, "secret": True, "token": False}, id="that there is one, or none"),
        pytest.param({"order": 1234567890123456, "at_ns": 1719859200000000000}, id="long numbers"),
    ],
)
def test_numbers_and_flags_under_secret_names_stay(value: Any) -> None:
    assert redact(value) == value


@pytest.mark.parametrize("name", ["password", "pin", "cvv", "ssn", "otp", "secret"])
def test_a_number_is_hidden_where_it_is_the_secret(name: str) -> None:
    assert redact({name: 493817}) == {name: REDACTED}


def test_a_card_number_is_hidden_as_a_number_too() -> None:
    assert redact([int(CARD), True]) == [REDACTED, True]


def test_what_is_under_a_secret_name_keeps_its_shape() -> None:
    value = {"credentials": [{"user": CANARY, "n": 5, "gone": None}, [CANARY, {}]]}
    assert redact(value) == {"credentials": [{"user": REDACTED, "n": 5, "gone": None}, [REDACTED, {}]]}


def test_a_tuple_stays_one() -> None:
    error = ValueError()
    assert redact({"exc_info": (ValueError, error, None)}) == {"exc_info": (ValueError, error, None)}


def test_no_secret_is_left_in_nested_json() -> None:
    value = {
        "headers": [{"Authorization": f"Bearer {CANARY}"}, {"x-api-key": CANARY}],
        "body": json.dumps({"user": "a", "password": CANARY, "nested": json.dumps({"token": CANARY})}),
        "dsn": f"postgresql://a:{CANARY}@b/c",
        "config": {"secrets": [{"deep": {"deeper": [CANARY]}}]},
        "log": f"login with password={CANARY} failed; Cookie: sid={CANARY}; a={CANARY}",
        "keys": ("sk-" + CANARY.replace("-", "") + KEY,),
    }
    shown = json.dumps(redact(value))
    assert "canary" not in shown
    assert '"user\\": \\"a\\"' in shown


def shape_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    return [shape_of(inner) for inner in value] if isinstance(value, list) else None


@given(values)
@settings(max_examples=50)
def test_structure_and_names_stay(value: Any) -> None:
    assert shape_of(redact(value)) == shape_of(value)


# Pieces of secrets and of what stands around them, so that patterns meet in every way.
pieces = st.lists(
    st.sampled_from(
        [
            *(text for text, _ in SECRETS.values()),
            *("password", "token", "tokens", "authorization", "Bearer ", "basic ", "cookie:", "secret", "sk-", "eyJ"),
            *(
                "=",
                ":",
                ": ",
                '"',
                "'",
                "\\",
                '\\"',
                "[",
                "]",
                "{",
                "}",
                "(",
                ")",
                ",",
                ";",
                "&",
                " ",
                "\n",
                "-",
                "_",
                ".",
            ),
            *(
                REDACTED,
                "redacted",
                "://",
                "a://b:",
                "@",
                "/",
                KEY,
                CARD,
                "4111",
                "1",
                "x",
                "é",
                "none",
                "ghp_",
                "whsec_",
            ),
        ]
    ),
    max_size=8,
).map("".join)


@given(pieces)
@settings(max_examples=200)
@example("password=[redacted]")
@example("Authorization: Bearer x")
def test_redacted_text_stays_as_it_is(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


@given(pieces | st.text(max_size=60))
@settings(max_examples=300)
@example(CARD)
@example("4111-1111-1111-1111")
@example("3782-822463-10005")
def test_the_quick_look_passes_over_nothing_that_the_search_would_find(text: str) -> None:
    searched = text
    for _, pattern, shown in _SEARCHES:
        searched = pattern.sub(shown, searched)
    assert redact_text(text) == searched


@given(values | st.dictionaries(st.sampled_from(["password", "tokens", "a"]), values, max_size=3))
@settings(max_examples=50)
def test_redacted_json_stays_as_it_is(value: Any) -> None:
    assert redact(redact(value)) == redact(value)
