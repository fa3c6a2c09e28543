"""The OpenAPI document: what FastAPI makes of the routes, with problems as what they are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from producer.api.problems import MEDIA_TYPE
from producer.api.shapes import ProblemView

PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemView, "description": meaning}
    for code, meaning in {
        400: "It cannot be accepted.",
        401: "No valid key.",
        403: "The key lacks the scope.",
        404: "There is no such thing.",
        409: "It stands otherwise, or is being accepted just now.",
        413: "The body is too large.",
        415: "The body is not said to be JSON.",
        422: "The key stands for another request.",
        429: "Too many requests.",
        503: "A server that this needs is away.",
    }.items()
}
_REFERENCE = "#/components/schemas/ProblemView"


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        for methods in made["paths"].values():
            for operation in methods.values():
                for response in operation["responses"].values():
                    _say_problem(response.get("content", {}))
        app.openapi_schema = made
    return app.openapi_schema


def _say_problem(content: dict[str, Any]) -> None:
    """Have an answer that is a problem be of its own media type."""
    if content.get("application/json", {}).get("schema", {}).get("$ref") == _REFERENCE:
        content[MEDIA_TYPE] = content.pop("application/json")
