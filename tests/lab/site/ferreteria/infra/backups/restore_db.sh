#!/bin/bash
# Restores a backup over the database: restore_db.sh FILE.sql.gz
set -e

APP_DIR="$(cd "$(dirname "$0")/../.." && pwd)"
BACKUP_FILE="$1"

if [ -z "$BACKUP_FILE" ]; then
    echo "Usage: $0 FILE.sql.gz"
    ls -lht /var/backups/ferreteria/daily/ 2>/dev/null || true
    exit 1
fi
if [ ! -f "$BACKUP_FILE" ]; then
    echo "ERROR: no such file: $BACKUP_FILE"
    exit 1
fi
BACKUP_FILE="$(realpath "$BACKUP_FILE")"

cd "$APP_DIR"
source .env.prod

echo "WARNING: this overwrites the database $POSTGRES_DB with $BACKUP_FILE"
read -p "Type YES to continue: " ANSWER
if [ "$ANSWER" != "YES" ]; then
    echo "Cancelled"
    exit 0
fi

gunzip -c "$BACKUP_FILE" | docker compose -f docker-compose.prod.yml exec -T db \
    psql -U "$POSTGRES_USER" -d "$POSTGRES_DB"
echo "Restore finished"
