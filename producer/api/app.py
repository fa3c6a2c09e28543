"""The app: routes, errors, and what all requests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from producer.api import (
    approvals,
    breakers,
    budgets,
    explain,
    health,
    jobs,
    keys,
    live,
    looks,
    policies,
    problems,
    roles,
    schedules,
)
from producer.api.access import Door
from producer.api.console import routes as console
from producer.api.console.sessions import Sessions
from producer.api.document import document_of
from producer.api.guard import Guard
from producer.api.metrics import Metrics
from producer.api.settings import ApiSettings
from producer.api.stopping import Stopping
from producer.client import Producer
from producer.errors import SurefootError


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """Return the app; nothing connects before it is needed.

    Raises:
        SettingsError: If a setting is missing or malformed, or would let in whom nobody meant to.
    """
    settings = settings or ApiSettings.from_env()
    producer, metrics = Producer(settings), Metrics()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await run_in_threadpool(producer.close)

    app = FastAPI(
        title="Surefoot",
        version=version("surefoot"),
        summary="Agent actions that survive: ask, look, wait, decide.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call it
        lifespan=lifespan,
        exception_handlers={
            SurefootError: problems.answer_ours,
            HTTPException: problems.answer_http,
            RequestValidationError: problems.answer_invalid,
            Exception: problems.answer_unforeseen,
        },
    )
    app.openapi = lambda: document_of(app)  # type: ignore[method-assign]  # as FastAPI's own docs have it
    app.state.settings, app.state.producer, app.state.metrics = settings, producer, metrics
    app.state.stopping = Stopping()
    app.state.door = Door(producer, api_keys=settings.api_keys)
    for router in (
        part.router
        for part in (explain, jobs, live, looks, approvals, keys, roles, policies, budgets, schedules, breakers, health)
    ):
        app.include_router(router)
    if settings.console:
        app.state.sessions = Sessions(settings.console_secret, seconds=settings.console_session_seconds)
        for router in console.ROUTERS:
            app.include_router(router)
    app.add_middleware(
        Guard,
        body_bytes=settings.api_body_bytes,
        body_seconds=settings.api_body_seconds,
        metrics=metrics,
    )
    return app
