"""Flower as it should be shown to people: behind a password, read-only, and without what it need not know.

It is a view of the broker's events and never the record. So it gets an app of its own (worker/flower_app.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from producer.errors import SettingsError

# Any of them asks whoever comes who he is.
WAYS_IN = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_AUTH_PROVIDER")
OPEN = "FLOWER_UNAUTHENTICATED_API"
PASSWORD_FILE = "FLOWER_BASIC_AUTH_FILE"  # noqa: S105  the name of a variable
# What holds where the environment says nothing else.
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # Celery's controls know no jobs: a ring that is revoked is rung again.
        "FLOWER_READ_ONLY": "true",
        # A model takes seconds, or minutes; Flower's own end at ten seconds.
        "FLOWER_TASK_RUNTIME_METRIC_BUCKETS": "0.01,0.05,0.1,0.5,1,2,5,10,20,40,60,120,300",
        "FLOWER_TASKS_COLUMNS": "name,args,state,received,runtime,worker",
        # Every worker container that ever was would stay in its lists, and in the labels of its metrics.
        "FLOWER_PURGE_OFFLINE_WORKERS": "600",
        "FLOWER_MAX_TASKS": "20000",
        "FLOWER_AUTO_REFRESH": "true",
    }
)


def flower_command(environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that becomes Flower, and the environment that it takes beside its own.

    Raises:
        SettingsError: If anybody could come in.
    """
    told = dict(DEFAULTS)
    if file := environment.get(PASSWORD_FILE):
        told["FLOWER_BASIC_AUTH"] = Path(file).read_text(encoding="utf-8").strip()
    given = {name: value for name, value in environment.items() if name.startswith("FLOWER_") and value}
    told |= {name: value for name, value in given.items() if name != PASSWORD_FILE}
    if not any(told.get(name) for name in WAYS_IN):
        raise SettingsError(f"FLOWER_BASIC_AUTH is not set; give it user:password, or one of {', '.join(WAYS_IN[1:])}")
    if told.pop(OPEN, "").lower() not in ("", "0", "false", "no"):
        raise SettingsError(f"{OPEN} would let anybody look at everything; take it away")
    if told.get("FLOWER_PERSISTENT", "").lower() in ("1", "true", "yes"):
        told.setdefault("FLOWER_STATE_SAVE_INTERVAL", "30000")  # else only when it ends well
    return [sys.executable, "-m", "celery", "-A", "worker.flower_app", "flower"], told
