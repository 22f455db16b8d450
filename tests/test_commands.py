"""The whole catalogue of commands, word for word: a change here is a change of what Guardia does on a VPS."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from blocks.host import Host
from blocks.site import Site
from deployments import command_list
from tasks import drill, new_cluster, ssh, volume
from tests import hostile, sample
from tests.ssh_server import SshServer

CATALOGUE = """\
  uptime
  cat /proc/sys/kernel/random/boot_id
  df -P -k -x tmpfs -x devtmpfs -x overlay -x squashfs -x efivarfs
  df -P -i -x tmpfs -x devtmpfs -x overlay -x squashfs -x efivarfs
  free -b
  id -u
  systemctl --version
  COMPOSE config --services
  COMPOSE ps --all --format json
  docker ps --all --filter status=created --filter status=exited --filter status=dead --format '{{.Names}}'
  docker image ls --filter dangling=true --format '{{.ID}}'
  COMPOSE logs --no-color --timestamps --tail=100 web
  COMPOSE logs --no-color --timestamps --tail=100 db
  COMPOSE logs --no-color --timestamps --tail=100 nginx
  journalctl --no-pager --output=short-iso --lines=100 --unit=docker.service
  cat /root/ferreteria/.env.prod
  COMPOSE ps --all --format json db
  COMPOSE ps --all --quiet db
  docker inspect --type container --format 'FORMAT' CONTAINER
  docker cp CONTAINER:/etc/passwd -
  find /DATA TESTS -printf '%U:%G %m %p\\n'
  du -s -k --dereference-args /DATA/pg_wal
  find /DATA/pg_replslot -mindepth 1 -maxdepth 1 -type d -printf '%f\\n'
  findmnt --noheadings --output SOURCE --target /DATA
  tune2fs -l DEVICE
  test -e /ASIDE/DATA
  stat --format %d /DATA /
  stat --format %d /DATA /var/backups
  docker version --format '{{.Server.Version}}'
* COMPOSE restart
* systemctl reboot
* COMPOSE up --detach --no-build --no-recreate
* docker system prune -f
* COMPOSE restart db
* chown --recursive 999:999 /DATA
* chmod --recursive u=rwX,go= /DATA
* journalctl --vacuum-size=16M
* rm -f -- COPY
* tune2fs -r 0 DEVICE
* COMPOSE up --detach --no-build --no-recreate --no-deps db
* tune2fs -r 1 DEVICE
"""
WITH_DATA = """\
  docker inspect --type container --format 'LIKE' CONTAINER
  docker container ls --all --quiet --filter label=guardia.rebuild=tandil
  tail --lines=100 /var/log/backup.log
  cat /etc/cron.d/shop
  find /var/backups/ferreteria/daily -maxdepth 1 -type f -name '*.sql.gz' -printf '%s %T@ %f\\0'
  cat /var/backups/ferreteria/daily/FILE
* COMPOSE stop web
* COMPOSE up --detach --no-build --no-recreate web
* install -d -m 700 -o 999 -g 999 /DATA.guardia-new
  docker inspect --type container --format '{{range .Config.Env}}{{println .}}{{end}}' CONTAINER
* docker run --detach --name REBUILD --label guardia.rebuild=tandil --volumes-from CONTAINER \
--volume /DATA.guardia-new:/DATA --shm-size 256m --no-healthcheck --env-file /dev/stdin IMAGE
* docker exec --interactive REBUILD dd of=/tmp/guardia-shop.dump bs=1M status=none
* docker exec REBUILD timeout 21600 pg_restore --exit-on-error --jobs=2 --section=pre-data --section=data INTO_NEW
* docker exec REBUILD timeout 21600 pg_restore --exit-on-error --jobs=2 --section=post-data INTO_NEW
* docker exec REBUILD rm -f /tmp/guardia-shop.dump
* docker stop --time 120 REBUILD
* docker container rm --force REBUILD
* install -d -m 700 /ASIDE
* COMPOSE stop web db
* mv --no-target-directory /DATA /ASIDE/DATA
* mv --no-target-directory /DATA.guardia-new /DATA
* tee --append /etc/cron.d/shop
  docker inspect --type container --format 'WHERE' CONTAINER
  zstd --version
  STRAIGHT pg_dump --version
  STRAIGHT pg_dump --format=custom --compress=0 PGDUMP
  zstd --single-thread -3 --zstd=strategy=5,minMatch=6 -q -c
* tee /var/backups/tandil/daily/BACKUP.dump.zst.part
  docker exec CONTAINER timeout 21600 pg_dump --format=custom --compress=6 PGDUMP
  docker exec CONTAINER pg_dumpall --roles-only --no-role-passwords --username=shop --port=5432
  find /var/backups/tandil/daily -maxdepth 1 -type f -name '*Z*.dump*' -printf '%f\\n'
* install -d -m 700 /var/backups/tandil/daily
* mv --no-target-directory /var/backups/tandil/daily/BACKUP.dump.zst.part /var/backups/tandil/daily/BACKUP.dump.zst
* rm -f -- /var/backups/tandil/daily/BACKUP.dump.zst
  docker exec CONTAINER df -P -k /tmp /DATA
  zstd -dcq
  head --bytes 1
  docker exec CONTAINER find /tmp -maxdepth 1 -name 'guardia-*'
  docker exec CONTAINER stat -c %s /tmp/guardia-DATABASE.dump
* docker exec --interactive CONTAINER dd of=/tmp/guardia-DATABASE.dump bs=1M status=none
* docker exec CONTAINER timeout 21600 pg_restore --exit-on-error --jobs=2 --section=pre-data --section=data PGRESTORE
* docker exec CONTAINER timeout 21600 pg_restore --exit-on-error --jobs=2 --section=post-data PGRESTORE
* docker exec CONTAINER rm -f /tmp/guardia-DATABASE.dump
* rm --recursive --force /DATA.guardia-new
* docker exec --interactive CONTAINER timeout 21600 psql PSQL
  docker inspect --type container --format '{{.Image}}' CONTAINER
  docker image inspect --format '{{.Id}}' IMAGE
  docker logs --tail 20 DRILL
  docker container ls --all --quiet --filter label=guardia.drill=tandil
  docker network ls --quiet --filter label=guardia.drill=tandil
* docker network create --internal --label guardia.drill=tandil DRILL
  cat
* docker run --detach --name DRILL --label guardia.drill=tandil --network DRILL LIMITS IMAGE OPTIONS
* docker container rm --force --volumes DRILL
* docker network rm DRILL
"""


SHORT = {
    "STRAIGHT": "sh -c 'exec \"$@\" 3>&1 >&2' sh runc --root /run/docker/runtime-runc/moby exec --preserve-fds 1 "
    "CONTAINER sh -c 'exec \"$@\" >&3 3>&-' sh",
    "PGDUMP": "--snapshot=SNAPSHOT --lock-wait-timeout=60000 "
    "'--dbname=user=shop port=5432 dbname=shop application_name=guardia-dump-BACKUP'",
    "PGRESTORE": "'--dbname=user=shop port=5432 dbname=DATABASE_part application_name=guardia-restore' "
    "/tmp/guardia-DATABASE.dump",
    "PSQL": "--no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --output=/dev/null '--dbname=user=DATABASE_part "
    "port=5432 dbname=DATABASE_part options='\"'\"'-c client_min_messages=error'\"'\"'' --file=-",
    "OPTIONS": " ".join(drill.settings(512)),
    "LIMITS": "--cpus 1 --memory 512m --shm-size 256m --no-healthcheck --security-opt no-new-privileges "
    "--env-file /dev/stdin",
    "WHERE": "{{.State.Status}} {{.HostConfig.NetworkMode}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
    "COMPOSE": "docker compose -f /root/ferreteria/docker-compose.prod.yml --env-file /root/ferreteria/.env.prod",
    "TESTS": "'(' '!' -uid 999 -o '!' -type l '(' '!' -perm -u=rw -o -type d '!' -perm -u=rwx ')' "
    "-o -path /DATA -perm /g=w,o=rwx ')'",
    "'FORMAT'": f"'{volume._FORMAT}'",
    "'LIKE'": f"'{new_cluster._FORMAT}'",
    "REBUILD": "guardia-rebuild-tandil",
    "INTO_NEW": "'--dbname=user=shop port=5432 dbname=shop_part application_name=guardia-restore' "
    "/tmp/guardia-shop.dump",
}


def lines(catalogue: str) -> list[str]:
    """A catalogue as it is printed, its short words spelt out."""
    for short, whole in SHORT.items():
        catalogue = catalogue.replace(short, whole)
    return catalogue.splitlines()


def test_guardia_runs_these_commands_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    command_list.print_commands(sample.site(), Console(soft_wrap=True))
    assert capsys.readouterr().out.splitlines() == lines(CATALOGUE)


def test_a_site_with_a_database_and_scripts_of_its_own_adds_these(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = {"log": "/var/log/backup.log", "cron_file": "/etc/cron.d/shop", "cron_line": "0 3 * * * root backup"}
    site = sample.site(database={"name": "shop", "user": "shop", "password": "secret"}, own_scripts=scripts)
    command_list.print_commands(site, Console(soft_wrap=True))
    added = [line for line in capsys.readouterr().out.splitlines() if line not in lines(CATALOGUE)]
    assert added == lines(WITH_DATA)


# Every text that reaches a command, and every text of the operator's that might.
PLACES = (
    "name", "url", "health_path", "address", "folder", "compose_file", "env_file", "services__web", "services__db",
    "services__nginx", "host__address", "host__user", "host__host_key", "host__private_key", "on_call__primary__name",
    "mailbox__host", "mailbox__sender", "mailbox__user", "mailbox__password", "sentry_url", "github_url",
    "ca_certificates", "gates__restart", "mailbox__security",
)  # fmt: skip


def hostile_site(place: str, text: str) -> Site | None:
    """The site with this text in that place; None if the place refuses it, and says that it does."""
    raw: dict[str, Any] = sample.raw(**{place: text})
    try:
        return Site.model_validate(raw)
    except ValidationError as error:
        assert {".".join(str(part) for part in problem["loc"]) for problem in error.errors()} == {
            place.replace("__", ".")
        }
        return None


@given(st.sampled_from(PLACES), hostile.text)
def test_hostile_text_is_refused_by_name_or_stays_one_word(place: str, text: str) -> None:
    site = hostile_site(place, text)
    for command in command_list.catalogue(site) if site else []:
        assert tuple(shlex.split(command.line)) == command.argv
        assert len(command.argv) in LENGTHS


LENGTHS = {len(command.argv) for command in command_list.catalogue(sample.site())}


@pytest.fixture(scope="module")
def vps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("vps")) as server:
        yield server


@pytest.fixture(scope="module")
def host(vps: SshServer) -> Iterator[Host]:
    host = vps.host()
    yield host
    ssh.close(host)


@settings(max_examples=50)
@given(st.sampled_from(["folder", "compose_file", "env_file", "services__web"]), hostile.text)
def test_the_vps_runs_docker_with_exactly_these_words_and_nothing_else(
    vps: SshServer, host: Host, place: str, text: str
) -> None:
    raw = sample.raw(**{place: text if place != "folder" else f"/{text}"})
    try:
        site = Site.model_validate(raw | {"host": host})
    except ValidationError:
        assume(False)
    vps.stub("docker")
    commands = [command for command in command_list.catalogue(site) if command.argv[0] == "docker"]
    for command in commands[:1] + commands[-1:]:
        ssh.run(host, command)
    assert vps.calls("docker") == [list(command.argv[1:]) for command in commands[:1] + commands[-1:]]
    assert list(vps.work.iterdir()) == []
