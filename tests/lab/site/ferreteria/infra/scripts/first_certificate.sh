#!/bin/bash
# Gets the site's first certificate: first_certificate.sh EMAIL
# nginx does not start without a certificate and the CA must reach nginx, so a self-signed one goes first.
# Another CA than certbot's own is named in /etc/letsencrypt/cli.ini.
set -euo pipefail

EMAIL=${1:?usage: first_certificate.sh EMAIL}
DOMAIN=ferreteria.test
LIVE=/etc/letsencrypt/live/$DOMAIN
cd "$(dirname "$0")/../.."
COMPOSE="docker compose -f docker-compose.prod.yml"

if [ -e "/etc/letsencrypt/renewal/$DOMAIN.conf" ]; then
    echo "$DOMAIN has a certificate already: certbot renews it"
    exit 0
fi
mkdir -p "$LIVE"
docker run --rm -v /etc/letsencrypt:/etc/letsencrypt ferreteria/nginx openssl req -x509 -nodes \
    -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj "/CN=$DOMAIN" \
    -keyout "$LIVE/privkey.pem" -out "$LIVE/fullchain.pem"
$COMPOSE up -d nginx
rm -r "$LIVE"
$COMPOSE run --rm -T --no-deps --entrypoint certbot certbot certonly --webroot --webroot-path /var/www/certbot \
    --domain "$DOMAIN" --email "$EMAIL" --agree-tos --no-eff-email --non-interactive
$COMPOSE exec -T nginx nginx -s reload
