"""Making pages: one environment that escapes everything, the headers that keep a page to itself, and what is live.

A page is a layout around a body. What is live asks for itself again every few seconds, says what it has seen, and gets
an empty answer for as long as nothing has changed: whoever reads is not disturbed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from producer.api.access import Caller
from producer.api.console import words
from producer.api.console.assets import ASSETS

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # Not no-referrer: a form would then come from the origin "null", and be refused.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-store: going back to a page is a matter of course for whoever looks at many.
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is in.

    Attributes:
        caller: What he may do, and by what he does it.
        form_token: What his forms carry.
        leaves: Whether there is a session that he could end.
    """

    caller: Caller
    form_token: str
    leaves: bool

    def may(self, scope: str) -> bool:
        """Whether he has a scope."""
        return bool(self.caller.scopes & {scope, "admin"})


def link(path: str, **query: Any) -> str:
    """Return the address of one of our pages; what is None is left out."""
    asked = urlencode({name: str(value) for name, value in query.items() if value is not None and value != ""})
    return f"/console{path}?{asked}" if asked else f"/console{path}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    finalize=words.finalized,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters |= {
    "moment": words.moment,
    "money": words.money,
    "seconds": words.seconds,
    "short": words.short,
    "since": words.since,
    "spoken": words.spoken,
    "tone": words.tone,
    "whole": words.whole,
}
_ENVIRONMENT.globals |= {"asset": {name: asset.address for name, asset in ASSETS.items()}, "link": link}


def page(
    request: Request,
    visitor: Visitor | None,
    template: str,
    *,
    title: str,
    live_seconds: float = 0,
    again_seconds: int = 0,
    status: int = 200,
    **facts: Any,
) -> Response:
    """Return a page.

    Args:
        request: What it answers.
        visitor: Who will see it; None where nobody is in.
        template: Of its body.
        title: Its title; made visible and escaped as everything is.
        live_seconds: How often it asks for itself again; 0 is not at all.
        again_seconds: After which the browser asks for all of it anew; 0 is never.
        status: Of the answer.
        facts: What its template names.
    """
    shared: dict[str, Any] = {"visitor": visitor, "title": title, "again_seconds": again_seconds}
    shared |= {"flower": request.app.state.settings.console_flower_url}
    body = Markup(_ENVIRONMENT.get_template(template).render(shared | facts))  # noqa: S704  escaped by its own template
    seen = hashlib.sha256(body.encode()).hexdigest()[:20]
    is_look = "hx-request" in request.headers
    if is_look and request.headers.get("x-seen") == seen:
        return Response(status_code=204, headers=HEADERS)
    address = f"{request.url.path}?{request.url.query}"
    shared |= {"body": body, "seen": seen, "live_seconds": live_seconds, "address": address}
    layout = "_live.html" if is_look else "_layout.html"
    return HTMLResponse(_ENVIRONMENT.get_template(layout).render(shared), status, headers=HEADERS)
