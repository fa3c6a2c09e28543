"""What the acceptance tests of schedules have workers do, and the schedules that their code declares."""

from __future__ import annotations

import os
from pathlib import Path

from tasks import Context, action, schedule


@action("test.beat", effect="pure")
def beat(log: str, ctx: Context) -> str:
    """Leave a line behind."""
    line = f"{ctx.request_id} {os.getpid()}\n"
    with Path(log).open("a") as file:
        file.write(line)
    return line


schedule("declared.nightly", action="test.beat", params={"log": "/dev/null"}, cron="0 3 * * *", zone="Europe/Berlin")
