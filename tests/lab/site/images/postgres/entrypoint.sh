#!/bin/bash
# Starts PostgreSQL; on an empty volume makes the cluster, the database and runs the init scripts first.
# POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD are read only then, as in the official image.
set -euo pipefail

[ "${1#-}" != "$1" ] && set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 0700 "$PGDATA"
    find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

initialise() {
    : "${POSTGRES_PASSWORD:?the data volume is empty: set POSTGRES_PASSWORD to make a new database}"
    local user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}} file

    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\njit = off\n" >> "$PGDATA/postgresql.conf"

    # On the socket only, so that nobody takes the half-made database for a ready one.
    pg_ctl start -w -o "-c listen_addresses=''"
    [ "$db" = postgres ] || createdb --username="$user" "$db"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ -e "$file" ] || continue
        echo "running $file"
        psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username="$user" --dbname="$db" --file="$file"
    done
    pg_ctl stop -w -m fast
}

[ -s "$PGDATA/PG_VERSION" ] || initialise
exec "$@"
