"""``make audit``: asks what is known against each package of the lock file, and says so where nobody answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNREACHABLE = 3
# What pip-audit says where its service does not answer, or answers with what is no answer.
NOBODY = (
    "ConnectionError",
    "ServiceError",
    "ServiceUnavailable",
    "connection",
    "HTTPError",
    "Max retries",
    "timed out",
)


def main() -> int:
    """Return 0 where nothing is known, 1 where something is, and 3 where the service cannot be asked."""
    program = Path(sys.executable).with_name("pip-audit")
    # From the lock file alone, without having pip look for anything.
    words = ["--requirement", str(ROOT / "requirements.lock"), "--require-hashes", "--disable-pip"]
    done = subprocess.run(
        [program, *words, "--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", "15"],
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    # What it could not ask about, it skips, and calls that well.
    skipped = "could not be audited" in done.stdout
    if skipped or (done.returncode and not done.stdout.strip() and any(word in done.stderr for word in NOBODY)):
        sys.stderr.write("not audited: the service that knows of vulnerabilities cannot be reached from here\n")
        return UNREACHABLE
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
