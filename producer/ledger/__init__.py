"""The Postgres record of jobs, decisions, events and published actions: the schema that both sides share."""
