"""Reading an author's function: what it takes, what it returns, and the schemas made of that."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, Required

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from producer.errors import SurefootError
from tasks._context import Context


class InvalidAction(SurefootError):
    """An action was declared in a way that cannot work; it does not register."""


def hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the types of an action's parameters and of its result; each must have one."""
    hints = typed_parameters(function, name)
    parameters = inspect.signature(function).parameters
    untyped = [p for p in parameters if p not in hints] + ([] if "return" in hints else ["return"])
    if untyped:
        raise InvalidAction(
            f"{name} ({place_of(function)}) needs a type for {', '.join(untyped)}: its schema is made from them"
        )
    return hints


def typed_parameters(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the types that a function declares, which can be called with its parameters by name.

    Raises:
        InvalidAction: If it cannot, or if a type cannot be found.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidAction(
            f"{name} ({place_of(function)}): there is no {error.name!r} to make its schema from;"
            " types are imported for good, not under TYPE_CHECKING"
        ) from error
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidAction(f"{name} ({place_of(function)}) yields; an action returns one result")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidAction(f"{name}: {parameter} cannot be given by name; declare each parameter")
    return hints


def context_name_of(hints: Mapping[str, Any], name: str) -> str | None:
    """Return which parameter receives the `Context`; None where none does."""
    names = [p for p, kind in hints.items() if kind is Context]
    around = [p for p, kind in hints.items() if Context in typing.get_args(kind)]
    if around or len(names) > 1:
        raise InvalidAction(f"{name}: declare one parameter as Context, alone; not {', '.join(around or names)}")
    return names[0] if names else None


def params_type(function: Callable[..., Any], name: str, hints: Mapping[str, Any], context_name: str | None) -> Any:
    """Make a type of the parameters by name. A TypedDict, not a model: a parameter may be called ``json``."""
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    fields = {
        n: Required[kind] if defaults[n] is inspect.Parameter.empty else NotRequired[kind]
        for n, kind in hints.items()
        if n != context_name
    }
    return with_config(ConfigDict(extra="forbid"))(TypedDict(f"{name} params", fields))  # type: ignore[operator]


def adapter_of(kind: Any, name: str, *, mode: Literal["validation", "serialization"]) -> TypeAdapter[Any]:
    """Make a validator, and its schema once: a worker publishes it, which would be late to find that it cannot."""
    try:
        adapter = TypeAdapter(kind)
        adapter.json_schema(mode=mode)
    except PydanticUserError as error:
        why = error.message.partition("\n")[0]
        raise InvalidAction(f"{name}: one of its types has no JSON schema: {why}") from error
    return adapter


def place_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
