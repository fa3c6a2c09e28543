"""Who approves in the chaos tests; apart, since who asks must not load the actions."""

APPROVER = "ben"
