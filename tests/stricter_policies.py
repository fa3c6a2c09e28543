"""A policy that somebody thinks about adding."""

from __future__ import annotations

from tasks import deny, rule

rule("nobody-pays", "gated.pay", deny("nobody pays any more"), when={"user_id": "ada"})
