"""A proof leaves nothing behind and takes no other's place; a bad verdict is an alarm."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Literal

import pytest
from prefect.client.schemas.objects import State

from blocks import site_file
from blocks.backup_store import BackupStore
from blocks.errors import DrillBroken
from blocks.site import Site
from flows import verify_backup as flow
from tasks import backups, ssh
from tasks.backup import Proof
from tests import stored
from tests.mail_server import MailServer
from tests.ssh_server import SshServer
from tests.stored import KEY, NOON, store

Verdict = Literal["proven", "bad"]
Ends = Callable[[Verdict | None], State[Any]]
Verified = Callable[[str, BackupStore | None], State[Any]]
OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="


@pytest.fixture
def verified(site: Site, ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Verified]:
    """How the job ends with this backup wanted and these [backups]; the stub of `docker` lists what is left."""
    host = ssh_server.host()

    def run(backup: str, store: BackupStore | None) -> State[Any]:
        found = site.model_copy(update={"host": host, "backups": store})
        monkeypatch.setattr(site_file, "load", lambda _: found)
        state: State[Any] = flow.verify_backup(site.name, backup=backup, return_state=True)  # type: ignore[assignment]
        return state

    yield run
    ssh.close(host)


@pytest.fixture
def ends(verified: Verified, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """How the job ends after this verdict, or a drill that broke."""

    def run(verdict: Verdict | None) -> State[Any]:
        def prove(_: Site, name: str) -> Proof:
            if verdict is None:
                raise DrillBroken(f"{name} could not be proven: no memory.", "Give it more.")
            said = {"restore_seconds": 4, "data_age_seconds": 60, "manifest_sha256": "0", "differences": ["a row"]}
            return Proof.model_validate(said | {"verdict": verdict, "at": NOON})

        monkeypatch.setattr(flow, "prove", prove)
        return verified("B", None)

    return run


def test_a_proof_that_left_nothing_is_no_news(ends: Ends, ssh_server: SshServer, post: MailServer) -> None:
    ssh_server.stub("docker")
    assert (ends("proven").name, post.messages) == ("Proven", [])


@pytest.mark.parametrize(
    ("verdict", "name"), [("proven", "Proven, not cleaned up"), ("bad", "Bad backup"), (None, "Drill broken")]
)
def test_a_copy_of_the_data_that_was_left_is_an_alarm_whatever_the_verdict(
    ends: Ends, ssh_server: SshServer, post: MailServer, verdict: Verdict | None, name: str
) -> None:
    ssh_server.stub("docker", "echo c0ffee")
    state = ends(verdict)
    assert (state.name, state.is_failed()) == (name, True)
    (message,) = post.messages
    assert str(message["Subject"]).endswith(f": {name}") and message["To"] == "ana@tandil.site"
    for said in (str(state.message), " ".join(message.get_content().split())):
        assert "could not be removed from 127.0.0.1" in said
        assert "docker container rm --force --volumes c0ffee" in said


def test_a_machine_that_does_not_say_what_is_left_is_an_alarm(
    ends: Ends, ssh_server: SshServer, post: MailServer
) -> None:
    ssh_server.stub("docker", "echo the daemon is away >&2; exit 1")
    state = ends("proven")
    assert state.name == "Proven, not cleaned up" and len(post.messages) == 1
    assert "Whether the restored copy of the data was removed cannot be told" in str(state.message)


@pytest.mark.parametrize("key", [OTHER_KEY, None], ids=["a wrong key", "no key"])
def test_a_proof_that_cannot_open_the_manifest_is_an_alarm_and_leaves_the_good_one(
    verified: Verified, ssh_server: SshServer, post: MailServer, key: str | None
) -> None:
    ssh_server.stub("docker")
    with stored.bucket_of(encryption_key=KEY) as signed:
        made = stored.made(signed)
        proof = stored.proved(signed, made)
        state = verified(made.name, store(stored.site(encryption_key=key)))
        assert (state.name, len(post.messages)) == ("Bad backup", 1)
        found = backups.find(signed, made.name)
    assert found.proof == proof and found.proven


def test_a_newest_backup_that_was_found_bad_is_an_alarm_without_being_restored_again(
    verified: Verified, ssh_server: SshServer, post: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_server.stub("docker")
    proven: list[str] = []
    with stored.bucket_of() as site:
        stored.proved(site, stored.made(site, NOON - timedelta(days=1)))
        made = stored.made(site)
        proof = stored.proved(site, made, verdict="bad", differences=["public.sale: 3 rows, 4 expected."])

        def prove(_: Site, name: str) -> Proof:
            proven.append(name)
            return proof

        monkeypatch.setattr(flow, "prove", prove)
        state = verified("", store(site))
        assert (state.name, proven) == ("Bad backup", [])
        (message,) = post.messages
        for said in (str(state.message), " ".join(message.get_content().split())):
            assert f"{made.name} must not be restored, as was found on 2026-11-24 13:00 UTC: public.sale" in said
            assert f"prove this one again with `guardia verify {made.name}`" in said
        verified(made.name, store(site))
        newer = stored.made(site, NOON + timedelta(days=1))
        verified("", store(site))
    assert proven == [made.name, newer.name]
