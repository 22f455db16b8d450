"""Clients that never stop selling, in a container beside the shop: `python3 -c` this, CLIENTS, RUN, PAUSE, TENANTS.

Each sale is one transaction with a line, a payment and a receipt whose recipient names it. "sold TOKEN SECONDS" is
printed once PostgreSQL has acknowledged the commit, and never otherwise; a line on standard input ends it all.
A lost connection is opened again at once.
"""

import queue
import random
import sys
import threading
import time
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # the shop's image has it, Guardia does not need it

CONNECTIONS = 40  # of the 50 that the shop's server allows: more clients than that share them
PRODUCTS = 60  # of each tenant, as seeded
SALE = """
WITH sold AS (INSERT INTO sale (tenant_id, status) VALUES (%(tenant)s, 'paid') RETURNING id, tenant_id),
line AS (INSERT INTO sale_line (tenant_id, sale_id, product_id, quantity, unit_price)
         SELECT tenant_id, sold.id, product.id, 1, price FROM sold JOIN product USING (tenant_id)
         WHERE product.id = %(product)s RETURNING sale_id, tenant_id, unit_price),
paid AS (INSERT INTO sale_payment (tenant_id, sale_id, method, amount)
         SELECT tenant_id, sale_id, 'cash', unit_price FROM line)
INSERT INTO receipt_mail (tenant_id, sale_id, recipient) SELECT tenant_id, sale_id, %(token)s FROM line
"""
over = threading.Event()
talking = threading.Lock()


def say(*words: object) -> None:
    """One whole line, at once."""
    with talking:
        print(*words, flush=True)


def sell(held: list[Any], token: str, tenants: int) -> bool:
    """Make one sale; whether it was acknowledged. `held` is a connection, or empty."""
    try:
        if not held:
            held.append(psycopg2.connect("host=db connect_timeout=2 tcp_user_timeout=3000 application_name=seller"))
        tenant = random.randrange(tenants)
        product = tenant * PRODUCTS + 1 + random.randrange(PRODUCTS)
        with held[0], held[0].cursor() as cursor:  # commits, or rolls back
            cursor.execute(SALE, {"tenant": tenant + 1, "product": product, "token": token})
        return True
    except psycopg2.errors.CheckViolation:
        return False  # sold out
    except psycopg2.Error as error:
        if not held or held[0].closed:
            held.clear()
        else:
            say("failed", token, type(error).__name__)
        return False


def client(number: int, run: str, pause: float, tenants: int, connections: queue.Queue[list[Any]]) -> None:
    """Sell until it is over."""
    count = 0
    while not over.is_set():
        count += 1
        token = f"{run}-{number}-{count}"
        held = connections.get()
        sold = sell(held, token, tenants)
        connections.put(held)
        if sold:
            say("sold", token, time.monotonic())
        time.sleep(pause)


def main(clients: int, run: str, pause: float, tenants: int) -> None:
    """Let them all sell until a line is read."""
    connections: queue.Queue[list[Any]] = queue.Queue()
    for _ in range(min(clients, CONNECTIONS)):
        connections.put([])
    threads = [threading.Thread(target=client, args=(n, run, pause, tenants, connections)) for n in range(clients)]
    for thread in threads:
        thread.daemon = True
        thread.start()
    sys.stdin.readline()
    over.set()
    for thread in threads:
        thread.join(5)
    say("over", time.monotonic())


main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
