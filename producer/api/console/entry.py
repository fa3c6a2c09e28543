"""The way in: by a key that is shown once and becomes a session, or by a proxy that is believed who somebody is.

Every form says by a token that one of our pages sent it to this very visitor, and every browser by `Sec-Fetch-Site` or
`Origin` that it did; either alone would do against forms on other people's pages.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, get_args
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials

from producer.acting import act_as
from producer.api.access import Caller, Door, require_own_name
from producer.api.console.page import HEADERS, Visitor, link, page
from producer.api.console.sessions import Sessions
from producer.api.problems import KINDS, SERVICE_UNAVAILABLE, Problem, of_error
from producer.api.settings import ApiSettings
from producer.errors import InvalidRequest, SurefootError
from producer.ledger.keys import Scope

COOKIE = "surefoot_console"
NAME_LENGTH = 200
SEE_OTHER = 303
# How soon a page comes again that has nothing to show for as long as a server is away.
AGAIN_SECONDS = 5
# What it means to whoever looks that a server is away; why, and where it is, is in the log.
MEANS: Mapping[str, str] = {
    "ledger-unavailable": "Postgres does not answer the API, so nothing can be shown or done just now. What was"
    " accepted is kept there, and goes on once it is back. The API's log says why: api.server_away.",
    "broker-unavailable": "Redis does not answer the API, so nobody can say how breakers stand, or override one. Jobs"
    " are accepted all the same, and rung once it is back. The API's log says why: api.server_away.",
}
# What another page's form could not send along unseen.
FORM = "application/x-www-form-urlencoded"


class SignedOut(Exception):
    """Nobody is in: he is shown the way in, and then what he came for."""


class ConsoleRoute(APIRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with what it raises made a page of."""
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except SignedOut:
                return _to_sign_in(request)
            except Problem as problem:
                return _problem_page(request, problem)
            except SurefootError as error:
                return _problem_page(request, of_error(error))
            except RequestValidationError:
                return _problem_page(request, Problem("invalid-request", "this address says nothing that can be shown"))

        return shown


router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


async def visitor_of(request: Request) -> Visitor:
    """Return who is in.

    Raises:
        SignedOut: If nobody is.
        Problem: If he may not look, or asks too often.
    """
    known: Visitor | None = getattr(request.state, "visitor", None)
    if known is not None:
        return known
    door: Door = request.app.state.door
    sessions: Sessions = request.app.state.sessions
    if door.is_open:
        require_own_name(request)
        visitor = Visitor(await door.caller(None), sessions.form_token("anybody"), leaves=False)
    elif (by_proxy := _of_proxy(request, door)) is not None:
        visitor = Visitor(by_proxy, sessions.form_token(f"proxy {by_proxy.name}"), leaves=False)
    else:
        token = request.cookies.get(COOKIE, "")
        key_id = sessions.key_of(token)
        if key_id is None:
            raise SignedOut
        try:
            caller = await door.caller_of(key_id)
        except Problem as problem:
            if problem.kind == "unauthenticated":
                raise SignedOut from problem
            raise
        visitor = Visitor(caller, sessions.form_token(token), leaves=True)
    request.state.caller, request.state.visitor = visitor.caller, visitor
    act_as(visitor.caller.who, _via(request, visitor))
    return visitor


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Visitor]]:
    """Return the dependency by which a page has its visitor, who must have this scope, or ``admin``."""

    async def visitor(request: Request) -> Visitor:
        found = await visitor_of(request)
        if not found.may(scope):
            raise Problem("forbidden", f"this takes a key with the scope {scope}", scope=scope)
        return found

    return visitor


async def form_of(request: Request) -> Mapping[str, str]:
    """Return what a form says, having made sure that it is one of ours.

    Raises:
        Problem: If it is not, or is no form.
    """
    said = await read_form(request)
    visitor = await visitor_of(request)
    if not hmac.compare_digest(said.get("form_token", "").encode(), visitor.form_token.encode()):
        raise Problem("forbidden", "this form is from another session, or from elsewhere; go back and load it anew")
    return said


async def read_form(request: Request) -> Mapping[str, str]:
    """Return what a form says that comes from one of our pages, whoever sends it."""
    _require_own_page(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem("invalid-request", "that is no form")
    try:
        found = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise Problem("invalid-request", "that is no form") from error
    # A browser ends lines as the network does.
    return {name: values[-1].replace("\r\n", "\n") for name, values in found.items()}


Looker = Annotated[Visitor, Depends(needs("read"))]
Operating = Annotated[Visitor, Depends(needs("operate"))]
Approving = Annotated[Visitor, Depends(needs("approve"))]
Administering = Annotated[Visitor, Depends(needs("admin"))]
Form = Annotated[Mapping[str, str], Depends(form_of)]


@router.get("/sign-in")
async def sign_in_page(request: Request, to: str = "") -> Response:
    """Show the way in."""
    return page(request, None, "sign_in.html", title="Sign in", to=_own_path(to), wrong="")


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take a key, and begin a session."""
    said = await read_form(request)
    to = _own_path(said.get("to", ""))
    door: Door = request.app.state.door
    try:
        key = said.get("key", "").strip()
        caller = await door.caller(HTTPAuthorizationCredentials(scheme="Bearer", credentials=key))
    except Problem as problem:
        if problem.kind != "unauthenticated":
            raise
        wrong = "That key is not valid, or not any more."
        return page(request, None, "sign_in.html", title="Sign in", status=401, to=to, wrong=wrong)
    answer = RedirectResponse(to, SEE_OTHER, headers=HEADERS)
    if caller.key_id is not None:
        settings: ApiSettings = request.app.state.settings
        answer.set_cookie(
            COOKIE,
            request.app.state.sessions.begin(caller.key_id),
            max_age=int(settings.console_session_seconds),
            path="/console",
            secure=_is_https(request),
            httponly=True,
            samesite="lax",  # strict would ask whoever follows a link from an alert to sign in again
        )
    return answer


@router.post("/sign-out")
async def sign_out(_form: Form) -> Response:
    """End the session in this browser. What ends it everywhere is revoking its key."""
    answer = RedirectResponse(link("/sign-in"), SEE_OTHER, headers=HEADERS)
    answer.delete_cookie(COOKIE, path="/console", httponly=True, samesite="lax")
    answer.headers["Clear-Site-Data"] = '"cache"'  # going back shows nothing to whoever comes next
    return answer


def text_of(form: Mapping[str, str], name: str) -> str:
    """Return a field of a form that must say something.

    Raises:
        InvalidRequest: If it does not.
    """
    said = form.get(name, "").strip()
    if not said:
        raise InvalidRequest(name, "is missing")
    return said


def back(path: str, **query: Any) -> Response:
    """Return the answer to a form: the page that shows what became of it."""
    return RedirectResponse(link(path, **query), SEE_OTHER, headers=HEADERS)


def _to_sign_in(request: Request) -> Response:
    # What cannot be asked for again is not come back to.
    came_for = request.url.path if request.method == "GET" else ""
    query = request.url.query
    address = link("/sign-in", to=f"{came_for}?{query}" if came_for and query else came_for)
    if "hx-request" in request.headers:  # the page behind a look, not the look
        return Response(status_code=200, headers=HEADERS | {"HX-Redirect": address})
    return RedirectResponse(address, SEE_OTHER, headers=HEADERS)


def _problem_page(request: Request, problem: Problem) -> Response:
    kind = KINDS[problem.kind]
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    headers = dict(problem.headers or {})
    is_form = request.method == "POST"
    is_away = kind.status == SERVICE_UNAVAILABLE
    answer = page(
        request,
        visitor,
        "problem.html",
        title=kind.title,
        status=kind.status,
        detail=MEANS.get(problem.kind, problem.detail),
        again=kind.again if is_away or problem.kind == "too-many-requests" else "",
        again_seconds=AGAIN_SECONDS if is_away and not is_form else 0,
        # The form is gone, but its sender can go back to it. What was under way when a server went may have landed.
        is_form=is_form,
        is_doubtful=is_form and is_away and visitor is not None,
    )
    answer.headers.update(headers)
    return answer


def _own_path(to: str) -> str:
    """Return a path of the console, and never an address of somebody else's."""
    parts = urlsplit(to.replace("\\", "/"))
    is_ours = not parts.scheme and not parts.netloc and (parts.path == "/console" or parts.path.startswith("/console/"))
    return to if is_ours and to.isprintable() and not parts.path.startswith("/console/sign-") else "/console"


def _via(request: Request, visitor: Visitor) -> str:
    """Return from where somebody acts, for the record."""
    address = "an unknown address" if request.client is None else request.client.host
    key = "" if visitor.caller.key_id is None else f", key {visitor.caller.key_id}"
    return f"console{key} from {address}"


def _of_proxy(request: Request, door: Door) -> Caller | None:
    """Return who comes through a proxy that is believed; None where that says of nobody."""
    settings: ApiSettings = request.app.state.settings
    if not settings.console_proxies or request.client is None or not _is_within(request.client.host, settings):
        return None
    name = request.headers.get(settings.console_user_header, "").strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        return None
    scopes = settings.console_scopes
    if settings.console_scopes_header:
        scopes = tuple(word.strip() for word in request.headers.get(settings.console_scopes_header, "").split(","))
    return door.named(name, [scope for scope in get_args(Scope) if scope in scopes])


def _is_within(host: str, settings: ApiSettings) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in settings.console_proxies)


def _require_own_page(request: Request) -> None:
    """Refuse what another site's page sends."""
    site = request.headers.get("sec-fetch-site")
    if site:
        is_ours = site in ("same-origin", "none")
    else:  # a browser without TLS on its way, beyond loopback
        is_ours = urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host", "")
    if not is_ours:
        raise Problem("forbidden", "this form comes from another site")


def _is_https(request: Request) -> bool:
    # Whoever lies about this only says of his own cookie where it may be sent.
    told = (request.url.scheme, request.headers.get("x-forwarded-proto", ""), request.headers.get("origin", ""))
    return any(word.startswith("https") for word in told)
