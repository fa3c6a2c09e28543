"""The one event loop of a worker process, whoever asks for it first."""

from __future__ import annotations

import subprocess
import sys

from producer import Settings
from tests.houses import ROOT, worker_environment

ASK_TOGETHER = """
import threading
from concurrent.futures import ThreadPoolExecutor
from worker import loop

together = threading.Barrier(16)

def ask(_):
    together.wait()
    return loop.process_loop()

with ThreadPoolExecutor(16) as threads:
    print(len(set(map(id, threads.map(ask, range(16))))))
"""


def test_threads_that_ask_for_the_loop_at_the_same_time_get_the_same(settings: Settings) -> None:
    command, environment = [sys.executable, "-c", ASK_TOGETHER], worker_environment(settings)
    asked = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout == "1\n"
