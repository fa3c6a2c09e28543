"""Anchors: has the newest seal leave for a file or a URL, from time to time. In a thread: nobody waits for either."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

from producer.anchoring import anchor_of
from producer.ledger.seals import Seal
from worker.log import log

POST_SECONDS = 10.0


class Anchors:
    """Exports the newest seal that this process made. Several workers each export their own, which does no harm."""

    def __init__(self, to: str, *, every_seconds: float) -> None:
        """Export nothing yet.

        Args:
            to: A file, to which lines are added; or an ``http(s)://`` URL, to which each is posted as JSON. Empty is
                nowhere.
            every_seconds: The least time between two.
        """
        self._to, self._every = to, every_seconds
        self._newest: Seal | None = None
        self._news, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="anchors", daemon=True)

    def start(self) -> None:
        """Export from now on, where there is somewhere to."""
        if self._to:
            self._thread.start()

    def stop(self) -> None:
        """Export what there is, and stop; safe to call twice, and before `start`."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(POST_SECONDS)

    def sealed(self, seal: Seal) -> None:
        """Take note of a seal; returns at once."""
        self._newest = seal
        self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            newest, self._newest = self._newest, None
            if newest is not None:
                self._export(newest)
            if self._stopping.is_set():
                return
            self._stopping.wait(self._every)

    def _export(self, seal: Seal) -> None:
        line = json.dumps(anchor_of(seal))
        try:
            if self._to.startswith(("http://", "https://")):
                _post(self._to, line)
            else:
                with Path(self._to).open("a") as file:
                    file.write(f"{line}\n")
        except Exception as error:  # noqa: BLE001  a server, a disk or a name that is wrong: the next seal is tried again
            log.warning("seal.not_anchored", seal=seal.n, error=str(error), pause_seconds=self._every)
        else:
            log.debug("seal.anchored", seal=seal.n)


def _post(url: str, line: str) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, line.encode(), headers, method="POST")  # noqa: S310  its scheme was looked at
    with urllib.request.urlopen(request, timeout=POST_SECONDS):  # noqa: S310  as above
        pass
