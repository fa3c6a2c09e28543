"""An action that a policy of another module guards: a worker may have loaded the one without the other."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tasks import Context, action
from tests.unbroken import unbroken

unbroken("guarded")


@action("guarded.send", effect="unsafe")
def send(book: str, ctx: Context) -> str:
    """Say in a book which worker did it."""
    worker = os.environ.get("TEST_WORKER", "")
    with Path(book).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"worker": worker, "job": str(ctx.job_id)}) + "\n")
    return worker
