#!/bin/bash
# Dumps the database into /var/backups/ferreteria/daily and keeps 30 days.
# Cron runs it at 03:00 into /var/log/ferreteria_backup.log.
set -e

APP_DIR="$(cd "$(dirname "$0")/../.." && pwd)"
BACKUP_DIR=/var/backups/ferreteria/daily
RETENTION_DAYS=30
BACKUP_FILE="$BACKUP_DIR/ferreteria_$(date +%Y-%m-%d_%H%M%S).sql.gz"

cd "$APP_DIR"
source .env.prod
mkdir -p "$BACKUP_DIR"

echo "[$(date '+%F %T')] Starting backup"
docker compose -f docker-compose.prod.yml exec -T db \
    pg_dump -U "$POSTGRES_USER" -d "$POSTGRES_DB" --no-owner --no-acl --clean --if-exists | gzip > "$BACKUP_FILE"

if [ ! -s "$BACKUP_FILE" ]; then
    echo "[$(date '+%F %T')] ERROR: the backup file is empty"
    exit 1
fi
echo "[$(date '+%F %T')] Backup created: $BACKUP_FILE ($(du -h "$BACKUP_FILE" | cut -f1))"

DELETED=0
for file in $(find "$BACKUP_DIR" -name 'ferreteria_*.sql.gz' -mtime +$RETENTION_DAYS); do
    rm -f "$file"
    ((DELETED++))
done
echo "[$(date '+%F %T')] Deleted $DELETED backups older than $RETENTION_DAYS days"
echo "[$(date '+%F %T')] Backup finished"
