"""Taking secrets out of what people and logs get to see: by name, and by shape.

What is read here may be hostile, so every pattern takes linear time: a match begins only where a word does, and
what it repeats is bounded, possessive, or ends where the next match could begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_\-. ])(?:pass(?:word|wd|phrase|code)?|pwd|pin|otp|secret|token|api[_\-]?key|authorization|cookie"
    r"|credential|private[_\-]?key|session[_\-]?id|access[_\-]?key|cvv|cvc|iban|ssn)s?(?:$|[_\-. ])"
)
# Of these names, the ones whose numbers are secrets too; tokens_in: 12 is a count and pass_rate: 0.9 a rate.
_TYPED_NUMBER = re.compile(r"(?i)password|passwd|passcode|pwd|pin|otp|secret|cvv|cvc|ssn")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# "basic understanding" is no credential: one has a digit, mixed case or padding, or is long.
_AUTHORIZATION = re.compile(
    r"\b(?P<scheme>(?i:bearer|basic)\s{1,8})(?=[A-Za-z+/._~\-]*+[0-9=]|[\w+/.~\-]*?[a-z][A-Z]|[\w+/=.~\-]{32})[\w+/=.~\-]{8,}+"
)
_COOKIE = re.compile(
    r"(?i)\b(?P<name>(?:set-)?cookie:[^\S\n]{0,8})"
    r"[^\s;,=:\"']{1,64}=[^\s;,\"']*(?:;[^\S\n]?[^\s;,=\"']+(?:=[^\s;,\"']*)?)*+"
)
_URL_PASSWORD = re.compile(r"(?i)(?<![a-z0-9+.\-])(?P<user>[a-z][a-z0-9+.\-]{0,20}://[^\s:/@\"'<>]*):[^\s/\"'<>]+@")
_NAMED = re.compile(
    r"(?i)(?P<name>(?:pass(?:word|wd|phrase|code)|pwd|secret|token|api[_\-]?key|authorization|credential"
    r"|private[_\-]?key|access[_\-]?key|session[_\-]?id)s?(?:[_\-][\w\-]{0,40}|(?-i:[A-Z])\w{0,40})?"
    r"\\{0,3}[\"']?[^\S\n]{0,8}[=:][^\S\n]{0,8})(?!(?:none|null|true|false)(?:[\s,;&}\])]|$))"
    r"(?P<value>(?P<quote>[\"'])(?:(?!(?P=quote))[^\\]|\\.)*+(?P=quote)"
    r"|(?P<escaped>\\{1,3}[\"'])[^\"']*+[\"']"  # JSON within JSON
    r"|(?:(?:bearer|basic|digest)[^\S\n]{1,8})?"
    r"(?:\[[^\[\]]{0,1000}\]|\([^()]{0,1000}\)|\{[^{}]{0,1000}\}|[^\s,;&}\])])++)"
)
_COUNTED = re.compile(r"(?i)tokens|token[_\-]?(?:count|limit|usage|budget)")
_MEMBER_NAME = re.compile(r"[\"'][\w\-]+\\*[\"']\s*:")
# By the first digits that card networks use, so that numbers of orders and moments in milliseconds stay.
_CARD = re.compile(
    r"(?<!\w)(?<!\w[.\-])(?:[3-6]\d{12,18}|2[2-7]\d{14}"
    r"|[2-6]\d{3}(?P<gap>[ \-])\d{4}(?P=gap)\d{4}(?P=gap)\d{1,7}"
    r"|3\d{3}(?P<amex>[ \-])\d{6}(?P=amex)\d{4,5})(?![.\-]?\w)"
)


def _named(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    if _COUNTED.search(name) and not any(c.isalpha() for c in _MEMBER_NAME.sub("", value)):
        return match.group()
    quote = match["quote"] or match["escaped"] or ""
    return f"{name}{quote}{REDACTED}{quote}"


def _card(match: re.Match[str]) -> str:
    """Hide a possible card number; one in ten random ones has the right check digit, so most others stay."""
    digits = [int(c) for c in match.group() if c.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]  # noqa: PLR2004  two digits summed
    return match.group() if (sum(digits[-1::-2]) + sum(doubled)) % 10 else REDACTED


# What is taken out of a text, in this order: signs, one of which is in every text that the pattern matches; the
# pattern; what stands in its place. To look for a sign takes a hundredth of what the pattern does; the empty one is
# in every text.
_SEARCHES: tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        ("-----BEGIN",),
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]{0,50}-----|$)", re.DOTALL),
        REDACTED,
    ),
    (("eyJ",), re.compile(r"(?<![\w\-])eyJ[\w\-]{8,}+\.[\w\-]{8,}+\.[\w\-]*+"), REDACTED),  # JSON web token
    # OpenAI, Anthropic, Stripe. A run of 16 tells their keys from words joined by hyphens.
    (("k-", "k_"), re.compile(r"\b(?:sk|pk|rk)[-_](?=[\w\-]{0,24}[A-Za-z0-9]{16})[\w\-]++"), REDACTED),
    (("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),  # Amazon
    (("AIza",), re.compile(r"\bAIza[\w\-]{35,}+"), REDACTED),  # Google
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]|github_pat)_\w{20,}+"),
        REDACTED,
    ),
    (  # GitLab, npm, Hugging Face, PyPI, SendGrid
        ("glpat-", "npm_", "hf_", "pypi-", "SG."),
        re.compile(r"\b(?:glpat-|npm_|hf_|pypi-|SG\.)[\w\-.]{20,}+"),
        REDACTED,
    ),
    (("xox",), re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}+"), REDACTED),  # Slack
    (("whsec_",), re.compile(r"\bwhsec_[A-Za-z0-9+/=]{16,}+"), REDACTED),  # Standard Webhooks
    (("",), _AUTHORIZATION, rf"\g<scheme>{REDACTED}"),
    ((":",), _COOKIE, rf"\g<name>{REDACTED}"),
    (("://",), _URL_PASSWORD, rf"\g<user>:{REDACTED}@"),
    (("2", "3", "4", "5", "6"), _CARD, _card),
    (("=", ":"), _NAMED, _named),
)

# Whatever a pattern above could match holds one of these. Most texts hold none, and one look is all that they cost.
_SUSPECT = re.compile(
    r"[\s=:]|-----|eyJ|[sprSPR][kK][-_]|AKIA|ASIA|AIza|gh[pousr]_|github_pat_|glpat-|npm_|hf_|pypi-|SG\.|xox|whsec_"
    r"|\d{12}|\d{4}-\d{4}|\d{4}-\d{6}"
)


def redact(value: Any) -> Any:
    """Return plain JSON with secrets replaced by ``[redacted]``; structure, names and harmless values stay."""
    if isinstance(value, Mapping):
        return {k: _hidden(k, v) if is_secret_name(k) else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return _sequence(value, [redact(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return REDACTED if 10**12 <= value < 10**19 and _CARD.sub(_card, str(value)) == REDACTED else value
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """Return `text` without what looks like a key, a token, a password or a card number."""
    if _SUSPECT.search(text) is None:
        return text
    return _searched(text)


@lru_cache(1024)
def is_secret_name(name: object) -> bool:
    """Whether what has this name is a secret."""
    return isinstance(name, str) and _SECRET_NAME.search(_CAMEL.sub("_", name)) is not None


def _searched(text: str) -> str:
    for signs, pattern, shown in _SEARCHES:
        for sign in signs:  # in a loop of its own: for short texts, `any` costs more than it saves
            if sign in text:
                text = pattern.sub(shown, text)
                break
    return text


def _hidden(name: str, value: Any) -> Any:
    """Hide every text under a secret name. That there is none, or whether, is no secret."""
    if isinstance(value, Mapping):
        return {k: _hidden(name, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return _sequence(value, [_hidden(name, item) for item in value])
    if value is None or isinstance(value, bool):
        return value
    return redact(value) if isinstance(value, int | float) and not _TYPED_NUMBER.search(name) else REDACTED


def _sequence(value: list[Any] | tuple[Any, ...], items: list[Any]) -> list[Any] | tuple[Any, ...]:
    # A tuple stays one: logging knows exc_info by it.
    return items if isinstance(value, list) else tuple(items)
