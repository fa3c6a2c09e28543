-- Who may do what in the ledger. Run once by a superuser, in the ledger's database, before the first migration:
--
--     psql --dbname surefoot --file deploy/roles/postgres.sql
--
-- and again after a migration that makes tables, which changes nothing else. Then give each role that logs in a password
-- (\password surefoot_app), and each process the URL of its own role:
--
--     surefoot_owner    surefoot migrate, and nothing else
--     surefoot_app      workers, the API, the command line
--     surefoot_service  services that ask for actions through `producer` and look what became of them

\set ON_ERROR_STOP on
BEGIN;

DO $$
DECLARE role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['surefoot_owner', 'surefoot_app', 'surefoot_service'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
    END IF;
  END LOOP;
  EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO surefoot_owner', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO surefoot_app, surefoot_service', current_database());
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO surefoot_owner;
GRANT USAGE ON SCHEMA public TO surefoot_app, surefoot_service;

-- What is there by now, and what migrations still make.
ALTER DEFAULT PRIVILEGES FOR ROLE surefoot_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO surefoot_app;
ALTER DEFAULT PRIVILEGES FOR ROLE surefoot_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO surefoot_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO surefoot_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO surefoot_app;

DO $$
DECLARE name text;
BEGIN
  -- History is only ever added to: nobody but the owner can change or take away what has happened.
  FOREACH name IN ARRAY ARRAY['events', 'breaker_events', 'acts', 'seals', 'messages', 'approval_votes'] LOOP
    IF to_regclass(name) IS NOT NULL THEN
      EXECUTE format('REVOKE UPDATE, DELETE ON %I FROM surefoot_app', name);
    END IF;
  END LOOP;
  -- Jobs and what was decided stay, whatever becomes of them.
  FOREACH name IN ARRAY ARRAY['jobs', 'decisions', 'actions'] LOOP
    IF to_regclass(name) IS NOT NULL THEN
      EXECUTE format('REVOKE DELETE ON %I FROM surefoot_app', name);
    END IF;
  END LOOP;
  -- Which migration was the last is the owner's to say.
  IF to_regclass('alembic_version') IS NOT NULL THEN
    EXECUTE 'REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM surefoot_app';
    EXECUTE 'GRANT SELECT ON alembic_version TO surefoot_service';
  END IF;
  IF to_regclass('jobs') IS NOT NULL THEN
    -- Ask, ask again under the same key, and look. No outcome can be written, nothing cancelled, no key made.
    EXECUTE 'GRANT SELECT ON jobs, decisions, events, actions, conversations, messages TO surefoot_service';
    IF to_regclass('policies') IS NOT NULL THEN
      EXECUTE 'GRANT SELECT ON policies TO surefoot_service';
    END IF;
    EXECUTE 'GRANT INSERT ON jobs, decisions, events, conversations TO surefoot_service';
    EXECUTE 'GRANT UPDATE (replays) ON jobs TO surefoot_service';
  END IF;
END $$;

COMMIT;
