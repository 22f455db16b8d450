"""The shop's database in its container on the practice VPS, as Guardia reaches it."""

import time
from collections.abc import Iterator

import pytest

from blocks.errors import ConfigError, DatabaseUnreachable, HostRefused, HostUnreachable
from blocks.site import Site
from tasks import postgres, ssh
from tests import sample
from tests.lab.served import env_prod
from tests.lab.test_faults import wait_for
from tests.lab.test_streams import host_of
from tests.lab.vps import PracticeVps

pytestmark = pytest.mark.lab

DB = "ferreteria_db_prod"
SHOP = env_prod("POSTGRES_DB")


@pytest.fixture
def site(vps: PracticeVps) -> Iterator[Site]:
    host = host_of(vps)
    database = {"name": SHOP, "user": env_prod("POSTGRES_USER"), "password": env_prod("POSTGRES_PASSWORD")}
    yield sample.site(host=host, database=database)
    ssh.close(host)


def sales(site: Site) -> int:
    with postgres.connect(postgres.production(site), SHOP) as connection:
        row = connection.execute("SELECT count(*) FROM public.sale").fetchone()
        assert row
        return int(row[0])


def test_the_shop_is_reached_and_its_programs_run_beside_it(site: Site) -> None:
    assert sales(site) >= 100_000
    version = ssh.run(site.host, postgres.inside(postgres.production(site), "pg_dump", "--version")).stdout
    assert version.startswith("pg_dump (PostgreSQL) 1")


def test_a_stopped_container_is_named_and_one_that_starts_is_worth_another_try(vps: PracticeVps, site: Site) -> None:
    vps.exec("docker", "stop", DB)
    with pytest.raises(DatabaseUnreachable, match="not running, but exited"):
        sales(site)
    vps.exec("docker", "start", DB)
    deadline = time.monotonic() + 30
    while True:
        try:
            assert sales(site) >= 100_000
            return
        except DatabaseUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_service_that_compose_does_not_know_is_a_mistake_in_the_site_file(site: Site) -> None:
    services = site.services.model_copy(update={"db": "nowhere"})
    with pytest.raises(ConfigError, match="has no service nowhere"):
        postgres.production(site.model_copy(update={"services": services}))


def test_an_sshd_that_forbids_forwarding_is_refused_with_the_cure(vps: PracticeVps, site: Site) -> None:
    vps.shell("echo 'AllowTcpForwarding no' > /etc/ssh/sshd_config.d/forward.conf && systemctl reload ssh")
    try:
        wait_for("the refusal", lambda: refusal(site) != "")
        assert "AllowTcpForwarding local" in refusal(site)
    finally:
        vps.shell("rm /etc/ssh/sshd_config.d/forward.conf && systemctl reload ssh")


def refusal(site: Site) -> str:
    """Why sshd lets nobody through, or nothing: a moment after it was told to reload it still does, or hangs up."""
    ssh.close(site.host)
    try:
        sales(site)
    except HostRefused as error:
        return error.cure
    except HostUnreachable:
        return ""
    return ""
