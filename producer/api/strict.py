"""Bodies are read as strictly as everywhere in Surefoot: no NaN, no name twice, nothing too deep."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from producer.api.problems import Problem, of_error
from producer.canonical import parse_json
from producer.errors import InvalidRequest


class StrictRequest(Request):
    """A request whose body is read as JSON."""

    async def json(self) -> Any:
        """Return the body's value.

        Raises:
            Problem: If it is none.
        """
        if not hasattr(self, "_value"):
            try:
                self._value = parse_json(await self.body(), where="body")
            except InvalidRequest as error:
                raise of_error(error) from error
        return self._value


class StrictRoute(APIRoute):
    """A route that reads its bodies so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, handed a strict request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.body_field is not None and kind != "application/json":
                raise Problem("not-json", "send JSON, and say so: Content-Type: application/json")
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly
