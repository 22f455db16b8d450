"""Register certbot's account key (a JWK on standard input) with this pebble and print the account's URL.

Pebble keeps its accounts in memory. A machine that starts from a disk image has an account that its new
pebble has never heard of, and `certbot renew` would fail for a reason that no real site has.
"""

import sys

import josepy  # type: ignore[import-not-found]  # Debian's, in the image
from acme import client, messages  # type: ignore[import-not-found]

key = josepy.JWKRSA.json_loads(sys.stdin.read())
net = client.ClientNetwork(key, verify_ssl=False)
directory = messages.Directory.from_json(net.get("https://127.0.0.1:14000/dir").json())
acme = client.ClientV2(directory, net)
account = acme.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
print(account.uri.replace("127.0.0.1", "ca.ferreteria.test"))
