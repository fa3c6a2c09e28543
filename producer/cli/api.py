"""``surefoot api``: the way in over HTTP."""

from __future__ import annotations

import click

from producer.cli.speaking import refuse, speaking_errors


@click.command()
@click.option("--host", help="The address to listen on; by default SUREFOOT_API_HOST, or 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), help="By default SUREFOOT_API_PORT, or 8100.")
@speaking_errors
def api(host: str | None, port: int | None) -> None:
    """Serve the HTTP API until told to stop."""
    try:
        from producer.api.server import serve  # noqa: PLC0415  an extra, and heavy
        from producer.api.settings import ApiSettings  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        refuse(f"{error.name} is not installed; the API needs the extra: surefoot[api]")
    serve(ApiSettings.from_env(api_host=host, api_port=port))
