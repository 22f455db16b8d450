"""Every command that Guardia can run on a VPS, word for word, so that it can be read before it is trusted."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape

from blocks.site import Site
from tasks import (
    compose,
    copies,
    cron,
    docker,
    drill,
    dump,
    free_space,
    host,
    new_cluster,
    own_dumps,
    postgres,
    rebuild,
    restore,
    volume,
)
from tasks.command import Command, Plan, Step, programs
from tasks.dump import Space
from tasks.free_space import Occupied
from tasks.host import BootId
from tasks.rebuild import Choice
from tasks.volume import Folder, Wrong

# Words that stand for what only the VPS knows.
_DATA = Folder(path="/DATA", uid=999, gid=999, container="CONTAINER")
_FULL = Occupied(slots=["SLOT"], copies=["COPY"], device="DEVICE", reserved=1)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_CHOICE = Choice(
    backup="BACKUP", snapshot_at=_LONG_AGO, proven_at=_LONG_AGO, restore_seconds=0, folder=_DATA, aside="/ASIDE/DATA",
    like=new_cluster.Like(image="IMAGE", pgdata="/DATA"),
)  # fmt: skip


def print_commands(site: Site, console: Console) -> None:
    """Print the catalogue of commands, those that change something marked with *."""
    for command in catalogue(site):
        console.print(f"{'*' if command.changes else ' '} {escape(command.line)}")


def catalogue(site: Site) -> list[Command]:
    """Every command that Guardia can run on the host, for this site."""
    acts = [compose.restart_services.plan(site), host.reboot.plan(site, BootId(boot_id=""))]
    acts += [compose.prune_leftovers.plan(site, docker.Leftovers(containers=[], images=[]))]
    looks: list[Step] = [host.uptime(), host.read_boot_id(), host.disk_space(), host.disk_inodes(), host.memory()]
    looks += [host.user_id(), host.systemctl_version()]
    looks += [compose.config_services(site), compose.ps(site), docker.stopped_containers(), docker.dangling_images()]
    looks += [compose.logs(site, service) for service in site.services.all()]
    looks += [docker.journal()]
    looks += [compose.env_file(site)] if site.env_file else []
    looks += _looks_at_data(site)
    acts += _acts_on_data(site)
    steps = looks + [step for plan in acts for step in plan.commands] + (_backups(site) if site.database else [])
    return list(dict.fromkeys(command for step in steps for command in programs(step)))


def _looks_at_data(site: Site) -> list[Step]:
    """How the database's container, its data folder and the site's own backups are looked at."""
    path, scripts = _DATA.path, site.own_scripts
    looks: list[Step] = [compose.ps(site, site.services.db), postgres.container(site)]
    looks += [volume.inspect(_DATA.container), volume.users(_DATA.container), volume.wrong_files(path, _DATA.uid)]
    looks += [free_space.wal_size(path), free_space.list_slots(path), free_space.device(path)]
    looks += [free_space.reserve("DEVICE"), rebuild.is_there(_CHOICE.aside)]
    looks += [rebuild.same_place(path, other) for other in ("/", "/var/backups")]
    looks += [new_cluster.inspect(_DATA.container), new_cluster.left(site)] if site.database else []
    looks += [cron.read_end(scripts.log)] if scripts and scripts.log else []
    looks += [cron.read_table(scripts.cron_file)] if scripts and scripts.cron_file else []
    looks += [own_dumps.list_files(scripts.folder), own_dumps.read_file(f"{scripts.folder}/FILE")] if scripts else []
    return looks


def _acts_on_data(site: Site) -> list[Plan]:
    """How a lost database and a missing cron line are put right, and how the web service is stopped and started."""
    acts = [compose.restart_database.plan(site), volume.give_back.plan(site, Wrong(folder=_DATA))]
    acts += [free_space.free_space.plan(site, docker.Leftovers(), _FULL)]
    acts += [compose.stop_web.plan(site), compose.start_web.plan(site)] if site.database else []
    acts += [rebuild.rebuild.plan(site, _CHOICE)] if site.database else []
    acts += [cron.add_line.plan(site, cron.Own())] if site.own_scripts and site.own_scripts.cron_line else []
    return acts


def _backups(site: Site) -> list[Step]:
    """How a backup is made, proven and restored; what is sent to psql and to the containers is data."""
    assert site.database is not None
    server, folder, name = postgres.named(site), copies.folder(site), "BACKUP"
    copy = f"{folder}/BACKUP.dump.zst"
    found = Space(database_bytes=0, free=0, expected=0, compression="zstd", copy_kept=True, straight=True)
    stream = dump.stream(server, site.database.name, name, "SNAPSHOT", found=found, part=f"{copy}.part")
    otherwise = dump.pg_dump(server, site.database.name, name, "SNAPSHOT", level=6)
    make: list[Step] = [dump.compressor_version(), postgres.straight_works(server), stream, otherwise]
    make += [dump.pg_roles(server), copies.list_files(folder)]
    make += [copies.make_folder(folder), copies.finish(copy), copies.remove(copy)]
    put: list[Step] = [restore.free(server, "/DATA"), restore.decompressor(), restore.at_most(1)]
    put += [restore.spool_files(server), restore.spooled(server, f"{restore.SPOOL}DATABASE.dump")]
    put += [*restore.steps(server, "DATABASE"), new_cluster.remove_folder(_CHOICE.new)]
    put += own_dumps.steps(server, site, "FILE", "DATABASE") if site.own_scripts else []
    prove: list[Step] = [drill.image_of("CONTAINER"), drill.image("IMAGE"), drill.log("DRILL")]
    prove += [drill.left(site, "container"), drill.left(site, "network"), drill.make_network(site, "DRILL")]
    prove += [drill.run(site, "DRILL", "IMAGE"), drill.remove("container", "DRILL"), drill.remove("network", "DRILL")]
    return [postgres.whereabouts(server), *make, *put, *prove]
