"""What a worker's environment says of the stand-ins, so that its actions find them."""

from __future__ import annotations

import os
from pathlib import Path

from worker.dev.standins import StandIns

PRICES = Path(__file__).with_name("stand_in_prices.json")


def mail_and_proxy(services: StandIns) -> dict[str, str]:
    """Return where mail goes, and that no proxy is asked for it."""
    return {
        "SUREFOOT_SMTP_URL": f"smtp://{services.smtp_host}:{services.smtp_port}",
        # A proxy in the environment would swallow calls to this machine.
        "NO_PROXY": ",".join(filter(None, ("127.0.0.1", os.environ.get("NO_PROXY")))),
    }


def world(services: StandIns) -> dict[str, str]:
    """Return where everything is, the model included."""
    return mail_and_proxy(services) | {
        "OPENAI_BASE_URL": services.llm_url,
        "OPENAI_API_KEY": "stand-in",
        "SUREFOOT_PRICES_FILE": str(PRICES),
    }
