#!/bin/bash
# Puts the previous release of the web service back. The database is not touched.
set -e

cd "$(dirname "$0")/../.."
COMPOSE="docker compose -f docker-compose.prod.yml"
CURRENT=$(git describe --tags --always HEAD)
PREVIOUS=$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || echo "HEAD^")

echo "Rolling back from $CURRENT to $PREVIOUS"
git checkout "$PREVIOUS"
$COMPOSE build web
$COMPOSE up -d --no-deps web

echo "Waiting for the service"
sleep 10
if $COMPOSE exec -T web wget --quiet --spider http://localhost:5000/health; then
    echo "Rollback to $PREVIOUS finished"
else
    echo "ERROR: unhealthy after the rollback to $PREVIOUS"
    exit 1
fi
