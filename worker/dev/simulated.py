"""The action behind ``surefoot-worker simulate``: it fails as often as it is told to."""

from __future__ import annotations

from tasks import Context, Retry, action


@action("simulate.call", effect="pure", max_retries=10, retry_backoff=1)
def call(failures: int, ctx: Context) -> str:
    """Time out on the first attempts, then answer."""
    if ctx.attempt <= failures:
        raise Retry(f"the model timed out (attempt {ctx.attempt} of {failures} that fail)")
    return f"the answer, at attempt {ctx.attempt}"
