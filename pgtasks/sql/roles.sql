-- Four roles, each with the rights it needs and no others; docs/roles.md says why these. To be run
-- on a database with the schema of pgtasks in it, by a superuser, or by the owner of both who may
-- create roles. Run again it adds what is missing, and changes nothing else.
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['{admin}', '{worker}', '{producer}', '{reader}'] LOOP
        IF to_regrole(wanted) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END
$$;

-- {admin} owns all that is pgtasks', to upgrade it and to make queues. What belongs to an
-- extension, or to another program's pgmq, stays with it.
DO $$
DECLARE
    owned text;
    is_guest boolean :=
        NOT pgtasks.owns_pgmq() AND to_regprocedure('pgmq.create(text)') IS NOT NULL;
BEGIN
    IF NOT pg_has_role('{admin}', 'USAGE') THEN
        GRANT {admin} TO CURRENT_USER;
    END IF;
    IF NOT has_database_privilege('{admin}', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO {admin}', current_database());
    END IF;
    IF NOT has_schema_privilege('{admin}', 'pgmq', 'CREATE') THEN
        GRANT CREATE ON SCHEMA pgmq TO {admin};
    END IF;
    IF is_guest THEN
        GRANT USAGE ON SCHEMA pgmq TO {admin};
        GRANT SELECT, INSERT ON pgmq.meta TO {admin};
    END IF;
    FOREACH owned IN ARRAY ARRAY(
        SELECT what
        FROM (
            SELECT 'pg_namespace'::regclass AS catalog, oid, nspowner AS owner,
                format('SCHEMA %I', nspname) AS what
            FROM pg_namespace
            WHERE nspname = 'pgtasks' OR NOT is_guest AND nspname = 'pgmq'
            UNION ALL
            SELECT 'pg_class'::regclass, oid, relowner, format('TABLE %s', oid::regclass)
            FROM pg_class
            WHERE relkind IN ('r', 'p') AND (
                relnamespace = 'pgtasks'::regnamespace
                OR NOT is_guest AND oid = 'pgmq.meta'::regclass
                OR pgtasks.owns_pgmq() AND relnamespace = 'pgmq'::regnamespace
                OR NOT is_guest AND oid IN (
                    SELECT to_regclass(format('pgmq.%I', prefix || queue_name))
                    FROM pgmq.meta, (VALUES ('q_'), ('a_')) AS tables (prefix)
                    WHERE pgtasks.is_queue_name(queue_name)
                )
            )
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, proowner, format('FUNCTION %s', oid::regprocedure)
            FROM pg_proc
            WHERE pronamespace = 'pgtasks'::regnamespace
                OR pgtasks.owns_pgmq() AND pronamespace = 'pgmq'::regnamespace
            UNION ALL
            SELECT 'pg_type'::regclass, pg_type.oid, typowner, format('TYPE %s', pg_type.oid::regtype)
            FROM pg_type
            JOIN pg_class ON pg_class.oid = typrelid AND relkind = 'c'
            WHERE pgtasks.owns_pgmq() AND typnamespace = 'pgmq'::regnamespace
        ) AS ours
        WHERE owner <> '{admin}'::regrole AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = ours.catalog AND objid = ours.oid AND deptype = 'e'
        )
        ORDER BY what LIKE 'SCHEMA %' DESC
    )
    LOOP
        EXECUTE format('ALTER %s OWNER TO {admin}', owned);
    END LOOP;
END
$$;

-- The others find the tables, and see whether the schema is the one that they work with.
GRANT USAGE ON SCHEMA pgtasks, pgmq TO {worker}, {producer}, {reader};
GRANT SELECT ON pgtasks.migration, pgmq.meta TO {worker}, {producer}, {reader};

-- {worker} does what it likes with messages and schedules, and nothing with the tables themselves.
GRANT SELECT, INSERT, UPDATE, DELETE ON pgtasks.schedule, pgtasks.fire, pgtasks.turn TO {worker};

-- {reader} sees everything, and changes nothing.
GRANT SELECT ON pgtasks.schedule, pgtasks.fire, pgtasks.turn TO {reader};

-- Where pgmq's functions are ours: what they look up besides the queues. Who adds a message to a
-- queue that tells of it writes down when it did.
DO $$
BEGIN
    IF pgtasks.owns_pgmq() THEN
        GRANT SELECT ON pgmq.topic_bindings TO {worker}, {producer}, {reader};
        GRANT SELECT ON pgmq.notify_insert_throttle TO {worker}, {producer}, {reader};
        GRANT UPDATE (last_notified_at) ON pgmq.notify_insert_throttle TO {worker}, {producer};
    END IF;
END
$$;

-- On the queues that there are, and on those to come, these two have the same rights, and
-- {producer} adds messages, hears their numbers, and reads none.
INSERT INTO pgtasks.grantee (role, rights)
VALUES ('{worker}', 'worker'), ('{producer}', 'producer'), ('{reader}', 'reader')
ON CONFLICT (role) DO UPDATE SET rights = excluded.rights;
DO $$
BEGIN
    PERFORM pgtasks.grant_queue(name)
    FROM (SELECT DISTINCT lower(queue_name) FROM pgmq.meta) AS known (name)
    WHERE pgtasks.is_queue_name(name)
        AND to_regclass(format('pgmq.%I', 'q_' || name)) IS NOT NULL
        AND to_regclass(format('pgmq.%I', 'a_' || name)) IS NOT NULL;
END
$$;

COMMIT;
