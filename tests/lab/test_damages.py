"""200 damages of archives and manifests in a real bucket: each is refused before anything live has changed.

What `guardia restore` does up to the swap is tried with each: find the backup, restore it into a new database of the
shop's own server, compare. Half of the damages are of backups that are encrypted and signed, where even who can write
to the bucket cannot forge one. Meanwhile the shop is looked at from outside.

Damages of the proof alone are counted for themselves: none of them may make the backup one that is proven.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.errors import BadBackup, ConfigError, GuardiaError
from blocks.site import Site
from tasks import backups, bucket, dump, envelope, inventory, keeping, manifest, postgres, restoring, s3, sealed, ssh
from tasks.backup import Proof
from tasks.command import Plan
from tasks.manifest import Contents, Manifest, Table
from tests import sample, stored
from tests.lab.outside import Seen, see
from tests.lab.seaweed import Store
from tests.lab.served import env_prod
from tests.lab.vps import PracticeVps

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500), pytest.mark.usefixtures("prefect_server")]
LIVE = "ferreteria_db"
SEED, EACH = 3, 100  # damages of each kind of bucket
OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
MINE, OTHER = "2026-11-20T030000Z", "2026-11-21T030000Z"
PART = 5 << 20  # bytes of a part of an upload
HEAD, CHUNK = len(sealed.MAGIC) + sealed.SALT, sealed.CHUNK + sealed.TAG  # bytes of a sealed stream
PLAN = Plan(what="", where="", commands=(), cost="")
SAID: list[str] = []  # for the summary

Files = dict[str, bytes]  # of one backup, by name
Damage = tuple[str, dict[str, bytes | None]]  # what it is, and the files of the backup that are other ones now, or lost


def summary() -> list[str]:
    """For the end of the session."""
    return SAID


@pytest.fixture(scope="module")
def sites(machine: PracticeVps, s3_store: Store) -> Iterator[Callable[..., Site]]:
    """The shop as a site of any name, with these settings of [backups]."""
    made: list[Site] = []

    def site(name: str = "tandil", **settings: Any) -> Site:
        host = {
            "address": "127.0.0.1", "port": machine.ssh_port, "private_key": machine.key_file.read_text(),
            "host_key": machine.host_key,
        }  # fmt: skip
        database = {"name": LIVE, "user": "ferreteria_user", "password": env_prod("POSTGRES_PASSWORD")}
        bucket = s3_store.settings(copies=0, **settings)
        made.append(sample.site(name=name, host=host, database=database, backups=bucket))
        return made[-1]

    yield site
    for each in made:
        ssh.close(each.host)


def backed_up(site: Site, name: str) -> Files:
    """Make a backup with a proof, and return its files."""
    made = dump.dump.fn(site, name, "daily", dump.space.fn(site))
    keeping.commit.fn(site, made)
    keeping.keep_proof.fn(site, name, proof(envelope.digest(made)))
    return {file: b"".join(s3.stream(site.backups, where(site, name, file))) for file in FILES if site.backups}


def proof(sha256: str) -> Proof:
    return Proof(verdict="proven", at=datetime.now(UTC), restore_seconds=4, data_age_seconds=60, manifest_sha256=sha256)


FILES = ("archive", "manifest.json", "proof.json")


def where(site: Site, name: str, file: str) -> str:
    return bucket.archive_key(site, name).removesuffix("archive") + file


def flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def damages(rng: random.Random, site: Site, mine: Files, other: Files, foreign: Files) -> Iterator[Damage]:
    """All that are not bits of the archive; `other` is a backup of the same site, `foreign` of another one."""
    for what, theirs in (("another backup", other), ("another site", foreign)):
        for file in FILES[:2]:
            yield f"{file} of {what}", {file: theirs[file]}
        yield f"archive and manifest of {what}", {file: theirs[file] for file in FILES[:2]}
        yield f"all files of {what}", dict(theirs)
    for file in FILES[:2]:
        yield f"{file} lost", {file: None}
        yield f"{file} empty", {file: b""}
    for _ in range(15):
        yield "a bit of the manifest flipped", {"manifest.json": flipped(rng, mine["manifest.json"])}
    for _ in range(7):
        yield "manifest cut off", {"manifest.json": cut(rng, mine["manifest.json"])}
    yield from of_archive(rng, mine["archive"])
    yield from (forged_with_a_key(site, mine) if keyed(site) else forged(site, mine))


def of_proof(rng: random.Random, site: Site, mine: Files, other: Files, foreign: Files) -> Iterator[Damage]:
    """Of the proof alone; with a key also one that somebody wrote without it, or with another."""
    for what, theirs in (("another backup", other), ("another site", foreign)):
        yield f"proof of {what}", {"proof.json": theirs["proof.json"]}
    yield "proof lost", {"proof.json": None}
    yield "proof empty", {"proof.json": b""}
    for _ in range(9):
        yield "a bit of the proof flipped", {"proof.json": flipped(rng, mine["proof.json"])}
    for _ in range(4):
        yield "proof cut off", {"proof.json": cut(rng, mine["proof.json"])}
    if keyed(site):
        good = envelope.unwrap(site, MINE, "proof", mine["proof.json"], Proof)
        for forger, how in forgers(site):
            yield f"proof with {how}", {"proof.json": envelope.wrap(forger, MINE, "proof", good)}


def of_archive(rng: random.Random, data: bytes) -> Iterator[Damage]:
    """Where it is cut or its chunks are moved, it is by whole parts of the upload and whole sealed chunks, too."""
    for size in (1, HEAD, HEAD + CHUNK, HEAD + 3 * CHUNK, PART, len(data) // CHUNK * CHUNK, len(data) - 1):
        yield f"archive cut off after {size} bytes", {"archive": data[:size]}
    for _ in range(6):
        yield "archive cut off", {"archive": cut(rng, data)}
    for extra in (b"\0", data[-CHUNK:], data):
        yield "archive longer", {"archive": data + extra}
    for size in (CHUNK, CHUNK, CHUNK, 4096, 512):
        first, second = sorted(rng.sample(range((len(data) - HEAD) // size), 2))
        a, b = HEAD + first * size, HEAD + second * size
        one, two = data[a : a + size], data[b : b + size]
        yield "chunks exchanged", {"archive": data[:a] + two + data[a + size : b] + one + data[b + size :]}
        yield "a chunk repeated", {"archive": data[:b] + one + data[b:]}
        yield "a chunk left out", {"archive": data[:a] + data[a + size :]}


def forged(site: Site, mine: Files) -> Iterator[Damage]:
    """Without a key who can write to the bucket can write a manifest that is whole, and says what is not so."""
    real = envelope.unwrap(site, MINE, "manifest", mine["manifest.json"], Manifest)
    tables = real.contents.tables
    sale = tables["public.sale"]
    lies: dict[str, dict[str, Any]] = {
        "a row more": {"tables": tables | {"public.sale": sale.model_copy(update={"rows": sale.rows + 1})}},
        "other rows": {"tables": tables | {"public.sale": sale.model_copy(update={"content": "1"})}},
        "a table more": {"tables": tables | {"public.ghost": Table(rows=1, content="1")}},
        "a role more": {"roles": (*real.contents.roles, "ghost")},
        "a newer PostgreSQL": {"server_version": 990000},
    }
    for what, changes in lies.items():
        contents = real.contents.model_copy(update=changes)
        lie = real.model_copy(update={"contents": contents})
        yield f"forged: {what}", {"manifest.json": envelope.wrap(site, MINE, "manifest", lie)}


def forged_with_a_key(site: Site, mine: Files) -> Iterator[Damage]:
    """With a key it takes the key to write one; an archive that is not encrypted does not pass for one that is."""
    real = envelope.unwrap(site, MINE, "manifest", mine["manifest.json"], Manifest)
    plain = real.model_copy(update={"encrypted": False})
    for forger, how in forgers(site):
        for what, lie in (("the same", real), ("not encrypted", plain)):
            yield f"manifest with {how}: {what}", {"manifest.json": envelope.wrap(forger, MINE, "manifest", lie)}
    for name, what in ((OTHER, "manifest"), (MINE, "proof")):
        moved = envelope.wrap(site, name, what, real).replace(f'"{what}":'.encode(), b'"manifest":')
        yield f"manifest signed as {what} of {name}", {"manifest.json": moved}
    yield "signed, but not encrypted", {"manifest.json": envelope.wrap(site, MINE, "manifest", plain)}


def keyed(site: Site) -> bool:
    return site.backups is not None and site.backups.encryption_key is not None


def forgers(site: Site) -> list[tuple[Site, str]]:
    """The site of somebody who can write to the bucket but lacks the key, and what they can give."""
    keyless, wrong = (stored.with_settings(site, encryption_key=key) for key in (None, SecretStr(OTHER_KEY)))
    return [(keyless, "no signature"), (wrong, "another key's signature")]


def refusal(site: Site) -> GuardiaError | None:
    """Try to restore."""
    try:
        restoring._restore_beside(PLAN, site, MINE)
    except (BadBackup, ConfigError) as error:
        return error
    return None


@contextmanager
def in_the_bucket(site: Site, changed: dict[str, bytes | None], mine: Files) -> Iterator[None]:
    """The damage is done in the bucket, and undone at the end."""
    assert site.backups is not None
    for file, data in changed.items():
        put_or_delete(site, file, data)
    try:
        yield
    finally:
        for file in changed:
            put_or_delete(site, file, mine[file])


def put_or_delete(site: Site, file: str, data: bytes | None) -> None:
    assert site.backups is not None
    if data is None:
        s3.delete(site.backups, [where(site, MINE, file)])
    else:
        s3.put(site.backups, where(site, MINE, file), data)


@contextmanager
def watched(vps: PracticeVps) -> Iterator[list[Seen]]:
    """Look at the site from outside every half second until the block ends."""
    looks, over = [see(vps.https_port, vps.ca_file)], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            looks.append(see(vps.https_port, vps.ca_file))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


@contextmanager
def server_facts(site: Site) -> Iterator[Callable[[], object]]:
    """Reads the server's databases and roles, what lies in its temporary folder, and how many rows were written."""
    query = """
        SELECT (SELECT array_agg(datname ORDER BY datname) FROM pg_database),
               (SELECT array_agg(rolname ORDER BY rolname) FROM pg_roles),
               (SELECT array_agg(f) FROM pg_ls_dir('/tmp') AS f WHERE f LIKE 'guardia%%'),
               (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables)
    """
    with postgres.connect(postgres.production(site), LIVE) as connection:
        yield lambda: connection.execute(query).fetchone()


def contents(site: Site) -> Contents:
    """What is in the live database, every row of it."""
    with postgres.connect(postgres.production(site), LIVE) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return inventory.take(connection)


def attempt_all(rng: random.Random, site: Site, mine: Files, others: tuple[Files, Files]) -> int:
    """Try every damage; returns how many were refused, and fails at the first that was not or left something."""
    wanted = list(damages(rng, site, mine, *others))
    assert len(wanted) <= EACH, len(wanted)
    assert all(changed.keys() & {"archive", "manifest.json"} for _, changed in wanted)
    wanted += [
        ("a bit of archive flipped", {"archive": flipped(rng, mine["archive"])}) for _ in range(EACH - len(wanted))
    ]
    with server_facts(site) as facts:
        before, refused = facts(), 0
        for what, changed in wanted:
            with in_the_bucket(site, changed, mine):
                error = refusal(site)
            print(f"{what}: {error}")  # shown if one is not refused
            assert error is not None, f"{what} was not refused"
            assert error.what and error.permanent, (what, error)
            assert facts() == before, f"{what}: {error}"
            refused += 1
    return refused


def believed(rng: random.Random, site: Site, mine: Files, others: tuple[Files, Files]) -> list[bool]:
    """Of each damage of the proof, whether the backup still counts as proven. The good proof does."""
    assert backups.find(site, MINE).proven
    found = []
    for what, changed in of_proof(rng, site, mine, *others):
        with in_the_bucket(site, changed, mine):
            found.append(backups.find(site, MINE).proven)
        print(f"{what}: {'believed' if found[-1] else 'not believed'}")  # shown if one is
    assert backups.find(site, MINE).proven
    return found


def test_200_damages_are_refused_before_anything_live_has_changed(
    vps: PracticeVps, sites: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "progress", lambda *_: nullcontext(lambda _: None))  # 400 requests for nothing
    kinds = {"plain": {}, "sealed": {"encryption_key": stored.KEY}}
    refused, proofs = 0, list[bool]()
    before, audit = contents(sites()), vps.audit()
    with watched(vps) as looks:
        for prefix, settings in kinds.items():
            site = sites(prefix=prefix, **settings)
            mine, other = backed_up(site, MINE), backed_up(site, OTHER)
            foreign = backed_up(sites("azul", prefix=prefix, **settings), MINE)
            rng = random.Random(SEED)
            refused += attempt_all(rng, site, mine, (other, foreign))
            proofs += believed(rng, site, mine, (other, foreign))
            assert restoring._restore_beside(PLAN, site, MINE).startswith("restored in")  # it was the damage alone
            restoring._drop_beside(PLAN, site, MINE)
    healthy = sum(seen.healthy for seen in looks)
    whole = f"{2 * EACH} damages of archives and manifests: {refused} refused before anything live changed"
    SAID.append(f"{whole}, live site healthy {healthy} of {len(looks)} looks")
    SAID.append(f"{len(proofs)} damages of proofs: {proofs.count(False)} not believed")
    assert refused == 2 * EACH
    assert not any(proofs)
    assert healthy == len(looks), [seen for seen in looks if not seen.healthy][:3]
    assert manifest.differences(before, contents(sites())) == []
    assert audit.changes() == []
