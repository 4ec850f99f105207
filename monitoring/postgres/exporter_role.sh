#!/bin/sh
# The role of PostgreSQL's exporter: it may log in and look at statistics, and at nothing that is sold.
# Run as often as you like; a new password takes the place of the old one.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set "password=$POSTGRES_EXPORTER_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
SELECT 'CREATE ROLE exporter' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'exporter') \gexec
ALTER ROLE exporter LOGIN PASSWORD :'password' CONNECTION LIMIT 5;
GRANT pg_monitor TO exporter;
SQL
