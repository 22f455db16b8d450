"""The plan of a restore beside the live database names every program that it runs on the VPS."""

from tasks import restoring
from tests import sample

SITE = sample.site(
    database={"name": "shop", "user": "shop", "password": "secret"}, own_scripts={"folder": "/var/backups/own"}
)
PG_RESTORE = "docker exec CONTAINER timeout 21600 pg_restore --exit-on-error --jobs=2"
HALF = "'--dbname=user=shop port=5432 dbname={new}_part application_name=guardia-restore' /tmp/guardia-{new}.dump"


def test_an_archive_is_spooled_restored_in_two_passes_and_named_when_it_is_whole() -> None:
    new = restoring.beside(SITE, "2026-11-24T030000Z")
    assert new == "shop_new__20261124t030000z"
    half = HALF.format(new=new)
    plan = restoring.restore_beside.plan(SITE, "2026-11-24T030000Z")
    assert "secret" not in plan.markdown
    assert [step.line for step in plan.commands] == [
        f"docker exec --interactive CONTAINER dd of=/tmp/guardia-{new}.dump bs=1M status=none",
        f'postgres=# CREATE DATABASE "{new}_part" TEMPLATE template0',
        f"{PG_RESTORE} --section=pre-data --section=data {half}",
        f"{PG_RESTORE} --section=post-data {half}",
        f'postgres=# ALTER DATABASE "{new}_part" RENAME TO "{new}"',
        f"docker exec CONTAINER rm -f /tmp/guardia-{new}.dump",
    ]


def test_a_file_of_the_sites_own_script_runs_as_a_role_without_rights() -> None:
    new = restoring.beside(SITE, "shop_2026.sql.gz")
    lines = [step.line for step in restoring.restore_beside.plan(SITE, "shop_2026.sql.gz").commands]
    assert lines[0] == "cat /var/backups/own/shop_2026.sql.gz"
    assert lines[1].startswith(f'postgres=# CREATE ROLE "{new}_part" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE')
    assert lines[2] == f'postgres=# CREATE DATABASE "{new}_part" OWNER "{new}_part" TEMPLATE template0'
    assert "timeout 21600 psql --no-psqlrc" in lines[3] and f"'--dbname=user={new}_part port=5432" in lines[3]
    assert lines[4:] == [
        f'postgres=# ALTER DATABASE "{new}_part" RENAME TO "{new}"',
        f'postgres=# DROP ROLE "{new}_part"',
    ]
