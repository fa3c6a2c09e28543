"""What goes wrong out there can be had on a terminal, on real servers: each of it in words, and as it should be."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from click.testing import CliRunner

from tests.acceptance.test_demo import run
from worker.cli import main
from worker.dev.scenarios import SCENARIOS

# What each scenario says on its way, in this order.
SAID: Mapping[str, list[str]] = {
    "llm-timeout": ["attempt 1 failed: the model did not answer in time", "retrying in", "attempt 3 succeeded"],
    "repeat": ["created", "replayed", "attempt 1 failed", "attempt 2 succeeded", "1 refund in the service's own books"],
    "rate-limit": ["held: the model's server answered 429", "no attempt is spent", "attempt 1 succeeded"],
    "slow-database": ["keeps the table of events to himself", "attempt 1 succeeded", "and did it once"],
    "changed-api": ["attempt 1 failed: result: price: Field required", "dead: out of retries: result: price"],
    "breaker": [
        "degraded: out of retries; the fallback stands in",
        "degraded: breaker open; the fallback stands in",
        "one call tries it",
        "attempt 1 succeeded",
    ],
    "approval": [
        "policy no-fortunes, version 1, says deny: nobody gives so much away",
        "failed: denied: no-fortunes (version 1): nobody gives so much away",
        "policy generous, version 1, says require approval: 100 EUR or more out of goodwill",
        "waits for a person: 100 EUR or more out of goodwill",
        "250.00 EUR",
        "digest",
        "approved by lead@example.com: they have waited for long enough",
        "attempt 1 succeeded",
        "before the yes 0 payments in the service's own books, after it 1",
    ],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each scenario; starting the servers takes longer than all of them."""
    done = run(tmp_path_factory.mktemp("simulate"), "simulate", "all")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    parts = re.split(r"── ([a-z-]+): ", done.stdout)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_told_step_by_step_and_goes_as_it_should(told: dict[str, str], name: str) -> None:
    said = " ".join(told[name].split())
    place = 0
    for words in SAID[name]:
        place = said.index(words, place)
    assert f"{name}: as it should be" in said


def test_the_command_s_help_names_every_scenario_in_its_words() -> None:
    shown = " ".join(CliRunner().invoke(main, ["simulate", "--help"]).output.split())
    for name, scenario in SCENARIOS.items():
        assert f"{name} {scenario.title}" in shown


def test_a_scenario_that_is_none_is_refused() -> None:
    refused = CliRunner().invoke(main, ["simulate", "weather"])
    assert refused.exit_code == 2
    assert "'weather' is none of llm-timeout, repeat" in refused.output
