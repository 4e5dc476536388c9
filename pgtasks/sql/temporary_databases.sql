-- The databases of this role whose names begin as those of temporary databases and their templates
-- do, and whether somebody is connected to each; a row without a name when there is none. With
-- them what a new one has to know: the server's clock, in whole seconds, and the role.
SELECT datname::text AS name, EXISTS (
        SELECT FROM pg_stat_activity WHERE pg_stat_activity.datid = pg_database.oid
    ) AS is_in_use,
    floor(extract(epoch FROM clock_timestamp()))::bigint AS clock, current_user::text AS role
FROM (SELECT) AS server
LEFT JOIN pg_database ON datname ~ '^pgtasks_(test|template)_'::text
    AND pg_get_userbyid(datdba) = current_user
ORDER BY 1
