"""What every command shares: errors in one line with an exit status, and ``--json``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import click
from sqlalchemy.exc import DBAPIError

from producer.errors import JobUnfinished, SurefootError

REFUSED = 2  # exit status where a request or a setting was refused; 1 is a job that did not succeed

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, a line each.")


def speaking_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn our errors into one line and an exit status; anything else keeps its traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except JobUnfinished as error:
            click.echo(f"surefoot: {error}", err=True)
            sys.exit(1)
        except SurefootError as error:
            refuse(str(error))
        except DBAPIError as error:
            refuse(f"Postgres: {error.orig}".strip())

    return run


def refuse(message: str) -> NoReturn:
    """Say why nothing was done, and end with the status for that."""
    click.echo(f"surefoot: {message}", err=True)
    sys.exit(REFUSED)
