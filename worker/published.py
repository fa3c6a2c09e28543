"""The policies that some worker's code declares, and those of them that this process has not loaded.

A process knows only the modules that it has imported. What another's guards it would perform unasked; so it leaves
alone the jobs of each action that a published policy is asked about and that it has not loaded, or has an older version
of. Every claim brings along how often the published policies have changed, so that none is missed from its commit on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from producer.ledger.policies import DeclaredPolicy, PublishedPolicy, news, publish_declared
from tasks import Rule
from worker.log import log

# Who has no claims to learn by, since it takes no jobs of the kind, looks so often.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read last: how often anything has changed by then, and by action what this process has not loaded."""

    changed: int | None
    lacking: Mapping[str, PublishedPolicy]


class Published:
    """One process's view. Safe to share between threads: what it knows is replaced and never changed."""

    def __init__(self, actions: Iterable[str], rules: Mapping[str, Sequence[Rule]]) -> None:
        """Know of nothing yet.

        Args:
            actions: That this process can perform.
            rules: The policies that it has loaded, by action; one that no policy is asked about is not there.
        """
        self._actions, self._rules = tuple(actions), rules
        self._known = _Known(None, {})
        self._read_at = float("-inf")
        self._told: set[tuple[str, int]] = set()

    @property
    def changed(self) -> int | None:
        """How often published policies had changed when they were read; None where there were none."""
        return self._known.changed

    @property
    def is_old(self) -> bool:
        """Whether it is time to read them again, for whoever does not claim."""
        return time.monotonic() - self._read_at >= LOOK_SECONDS

    def lacking(self, action: str) -> PublishedPolicy | None:
        """Return a policy that has to be asked about an action and that this process has not loaded; or None."""
        return self._known.lacking.get(action)

    def learn(self, policies: Sequence[PublishedPolicy]) -> None:
        """Take over what was read: all of them, those that are retired, too."""
        self._read_at = time.monotonic()
        if not policies:  # nothing new, or nothing at all: none ever goes
            return
        lacking = lacking_of(self._actions, self._rules, policies)
        self._known = _Known(max(each.changed for each in policies), lacking)
        self._tell(lacking)

    def read(self, connection: Connection) -> None:
        """Read what is new.

        Args:
            connection: In autocommit.
        """
        self.learn(news(connection, self.changed))

    def here(self, policy: PublishedPolicy) -> str:
        """Say what this process has of a policy that it lacks."""
        return what_is_here(self._rules, policy)

    def _tell(self, lacking: Mapping[str, PublishedPolicy]) -> None:
        """Log each once: every ring of such a job comes here."""
        for policy in lacking.values():
            if (policy.name, policy.version) not in self._told:
                self._told.add((policy.name, policy.version))
                log.warning(
                    "policy.not_loaded",
                    rule=policy.name,
                    version=policy.version,
                    here=self.here(policy),
                    actions=sorted(action for action, found in lacking.items() if found.name == policy.name),
                    declared_in=policy.declared_in,
                )


def lacking_of(
    actions: Iterable[str], rules: Mapping[str, Sequence[Rule]], policies: Sequence[PublishedPolicy]
) -> dict[str, PublishedPolicy]:
    """Return by action the first policy that has to be asked about it and that is not among its rules.

    One in an older version is not: it may say what the newer one does not say any more.
    """
    lacking = {}
    for action in actions:
        versions = {rule.name: rule.version for rule in rules.get(action, ())}
        for each in policies:
            if each.retired_at is None and each.matches(action) and versions.get(each.name, 0) < each.version:
                lacking[action] = each
                break
    return lacking


def what_is_here(rules: Mapping[str, Sequence[Rule]], policy: PublishedPolicy) -> str:
    """Say what of a policy that is lacking is among these rules."""
    versions = {rule.name: rule.version for loaded in rules.values() for rule in loaded}
    version = versions.get(policy.name)
    if version is None:
        return "none of that name"
    return f"version {version}" if version < policy.version else "it for other actions"


def doubts(
    actions: Iterable[str], rules: Mapping[str, Sequence[Rule]], policies: Sequence[PublishedPolicy]
) -> list[str]:
    """Return which published policies are lacking, in a sentence each: somebody may wonder why nothing is performed."""
    lacking = lacking_of(actions, rules, policies)
    return [
        f"policy {policy.name} (version {policy.version}, {policy.declared_in}) is published, and this code has"
        f" {what_is_here(rules, policy)}: jobs of {', '.join(sorted(a for a, p in lacking.items() if p == policy))} are"
        f" left to workers that have it. If no code declares it any more: surefoot policy retire {policy.name}"
        for policy in dict.fromkeys(lacking.values())
    ]


def publish_policies(connection: Connection, rules: Iterable[Rule]) -> None:
    """Have every worker know that these policies are to be asked. An older version never replaces a newer one's word.

    What no code declares any more stays until a person retires it (``surefoot policy retire``): a gate does not open by
    itself.
    """
    declared = [
        DeclaredPolicy(name=each.name, version=each.version, pattern=each.pattern, declared_in=each.place)
        for each in rules
    ]
    for name in publish_declared(connection, declared):
        log.info("policy.published", rule=name)
