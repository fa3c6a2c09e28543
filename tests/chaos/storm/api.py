"""The HTTP API of a storm: `surefoot api`, which dies where it is told to. `tests.chaos.storm.deadly` says how.

python -m tests.chaos.storm.api PORT
"""

from __future__ import annotations

import os
import signal
import sys

from producer.api.server import serve
from producer.api.settings import ApiSettings
from tests.chaos.storm.deadly import obey

if __name__ == "__main__":
    obey(lambda: os.kill(os.getpid(), signal.SIGTERM))
    serve(ApiSettings.from_env(api_host="127.0.0.1", api_port=int(sys.argv[1])))
