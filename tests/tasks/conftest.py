"""What the tests of steps share: two equal shops in a real PostgreSQL, one to be damaged; a site with a bucket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.site import Site
from tasks import damage
from tests import stored
from tests.postgres_server import PostgresServer
from tests.stored import KEY
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


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with an empty bucket, without an encryption key and with one; a module may have a `site` of its own."""
    with stored.bucket_of(encryption_key=request.param, prefix="here") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the dumps of a VPS lie."""
    folder = tmp_path / "daily"
    folder.mkdir()
    return folder
