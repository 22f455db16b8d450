"""Two equal shops in a real PostgreSQL: the live one, which a test damages, and a backup restored beside it."""

from collections.abc import Iterator

import pytest

from tasks import damage
from tests.postgres_server import PostgresServer
from tests.tasks import shop
from tests.tasks.shop import Pair


@pytest.fixture(scope="module")
def seeded(postgres: PostgresServer) -> PostgresServer:
    shop.make(postgres)
    return postgres


@pytest.fixture
def shops(seeded: PostgresServer) -> Iterator[Pair]:
    """Live is a fresh copy for each test."""
    shop.copy(seeded, "damaged_beside", "damaged_live")
    with seeded.connect("damaged_live") as live, seeded.connect("damaged_beside") as beside:
        yield live, beside
        damage.forget(beside)
