"""Whom ``http.request`` may call, as its worker is told."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from producer.errors import SettingsError
from tasks._hosts import http_hosts

HOSTS = "api.example.com, *.Partner.example,bücher.example.,127.0.0.1,[::1],fe80::1"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    http_hosts.cache_clear()
    yield
    http_hosts.cache_clear()


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://API.example.com.:8443/v1",
        "https://deep.below.partner.example",
        "https://xn--bcher-kva.example/",
        "https://BÜCHER.example/",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[FE80::1]/",
        "https://evil.example@api.example.com/",
        "https://evil.example\\@api.example.com/",  # the client reads a user of that name
    ],
)
def test_a_host_may_be_called_that_is_named_or_below_one_that_is_named_with_all_below_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUREFOOT_HTTP_HOSTS", HOSTS)
    assert http_hosts().include(httpx.URL(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://partner.example/",
        "https://notpartner.example/",
        "https://.partner.example/",
        "https://api.example.com.evil.example/",
        "https://api.example.com@evil.example/",
        "https://evil.example#@api.example.com/",
        "https://api.example.com\\@evil.example/",
        "https://api.example.com%2eevil.example/",
        # What a proxy might take for the end of a host: none of these is a name in DNS.
        "http://evil.example\\.partner.example/",
        "http://evil.example%2f.partner.example/",
        "http://evil.example%00.partner.example/",
        "http://evil.example%23.partner.example/",
        "http://evil.example%40x.partner.example/",
        "http://evil.example;.partner.example/",
        "http://evil.example .partner.example/",
        # How else one may write 127.0.0.1.
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_no_other_host_may_be_called_however_it_is_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_HTTP_HOSTS", HOSTS)
    assert not http_hosts().include(httpx.URL(url))


@pytest.mark.parametrize("told", [None, ""])
def test_where_it_is_not_set_any_host_may_be_called(told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUREFOOT_HTTP_HOSTS", raising=False)
    if told is not None:
        monkeypatch.setenv("SUREFOOT_HTTP_HOSTS", told)
    assert http_hosts().include(httpx.URL("https://anybody.example/"))


@pytest.mark.parametrize("told", [",", " , "])
def test_a_list_of_nobody_is_refused_and_does_not_mean_anybody(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_HTTP_HOSTS", told)
    with pytest.raises(SettingsError, match="names no host; leave it unset where any may be called"):
        http_hosts()


@pytest.mark.parametrize(
    "told",
    [
        "https://api.example.com",
        "api.example.com:443",
        "api.example.com/v1",
        "me@api.example.com",
        "a.example;b.example",
        '"api.example.com"',
        "$HOST",
        "*",
        "*.",
        "api.*.example",
        "*.[::1]",
        "*.10.0.0.1",
        ".example.com",
        "example..com",
        ".",
        "two words.example",
        "[::1",
        "\u2488.example",
    ],
)
def test_what_is_no_host_is_refused_and_the_whole_list_with_it(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_HTTP_HOSTS", f"api.example.com,{told}")
    with pytest.raises(SettingsError, match=r"SUREFOOT_HTTP_HOSTS: .+ is not a host; write api\.example\.com, or "):
        http_hosts()
