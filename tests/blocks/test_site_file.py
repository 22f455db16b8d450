"""The site file: where a mistake is named by its place and its cure, and a secret is only pointed to."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from blocks import site_file
from blocks.errors import ConfigError
from tests import hostile, sample
from tests.stored import KEY


def toml(said: dict[str, Any]) -> str:
    """What a site file says, with inline tables for its parts."""
    return "\n".join(f"{name} = {_value(value)}" for name, value in said.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "key").write_text(sample.private_key())
    (folder / "binary").write_bytes(b"\xff\xfe")
    return folder


def write(place: Path, /, **changes: Any) -> Path:
    path = place / "site.toml"
    said = sample.raw(**({"host__private_key": {"file": "key"}} | changes))
    path.write_text(toml(said), encoding="utf-8")
    return path


def test_a_good_file_is_a_site_with_its_secrets_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    site = site_file.read(write(folder, mailbox__password={"env": "MAIL_PASSWORD"}, gates={"restart": "ask"}))
    assert site.host.private_key.get_secret_value() == sample.private_key()
    assert site.mailbox is not None
    assert site.mailbox.password.get_secret_value() == "hunter2"
    assert (site.gates.restart, site.gates.reboot) == ("ask", "ask")


def test_a_value_that_is_no_secret_may_be_pointed_to_as_well(folder: Path) -> None:
    (folder / "host_key.pub").write_text(sample.host_key())
    assert site_file.read(write(folder, host__host_key={"file": "host_key.pub"})).host.host_key == sample.host_key()


MISTAKES = {
    "nowhere to point to": ({"host__private_key": {"file": "nowhere"}}, "host.private_key: ", "Check the path."),
    "a home of nobody": (
        {"host__private_key": {"file": "~no such user/key"}},
        "host.private_key: ",
        "Check the path.",
    ),
    "a binary file": ({"host__private_key": {"file": "binary"}}, "host.private_key: ", "Check the path."),
    "no such variable": (
        {"mailbox__password": {"env": "NO_SUCH"}},
        "the environment has no NO_SUCH.",
        "export NO_SUCH",
    ),
    "a secret in the file": (
        {"mailbox__password": "hunter2"},
        "a secret does not belong in a file kept in git",
        "env =",
    ),
    "a secret that may be left out, in the file": (
        {"backups": {"bucket": "abc", "access_key_id": "k", "encryption_key": KEY}},
        "backups.encryption_key: a secret does not belong in a file kept in git",
        "env =",
    ),
    "two sources": ({"mailbox__password": {"env": "A", "file": "b"}}, "mailbox.password: ", "Write { env"),
    "an unknown source": ({"mailbox__password": {"vault": "A"}}, "mailbox.password: ", "Write { env"),
    "a source without a name": ({"mailbox__password": {"env": ""}}, "mailbox.password.env must be a name.", "Write"),
    "a table for a word": ({"name": {"x": "y"}}, "name: is not a value.", "Write { env"),
    "a typo": ({"flder": "/x"}, "flder is not a setting.", "Did you mean 'folder'?"),
    "a typo in a part": ({"host__adress": "x"}, "host.adress is not a setting.", "Did you mean 'address'?"),
    "a typo in a list": (
        {"on_call__stakeholders": [{"name": "Caro", "chanels": ["a@b"]}]},
        "on_call.stakeholders.chanels is not a setting.",
        "Did you mean 'channels'?",
    ),
    "nothing like a setting": (
        {"gates__zzz": 1},
        "gates.zzz is not a setting.",
        "Known here: chown, escalate_after, f",
    ),
    "missing": ({"folder": None}, "1 problem: folder: is missing.", "nothing was changed"),
    "two problems": ({"folder": None, "name": "X Y"}, "2 problems: name: ", "nothing was changed"),
    "a pattern": ({"name": "X Y"}, "(Short name: lower-case letters, digits and dashes.)", "nothing was changed"),
    "a pattern in a part": ({"host__address": "x y"}, "host.address: ", "(Host name or IP address of the VPS"),
    "a part that is none": ({"host": "vps.test"}, "host: ", "nothing was changed"),
    "a service": ({"services__web": "a b"}, "services.web: ", "nothing was changed"),
    "mail without a mailbox": ({"mailbox": None}, "there is no [mailbox] to send from; add one", "nothing was changed"),
}


@pytest.mark.parametrize(("changes", "what", "cure"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_cure(
    folder: Path, changes: dict[str, Any], what: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        site_file.read(write(folder, **changes))
    assert what in str(caught.value)
    assert cure in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no site file .*nowhere\.toml"):
        site_file.read(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("name = tandil\n")
    with pytest.raises(ConfigError, match=r"site\.toml is not TOML: .*line 1"):
        site_file.read(tmp_path / "site.toml")


@pytest.mark.parametrize("broken", ["folder", "binary"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, broken: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        site_file.read(folder if broken == "folder" else folder / "binary")


PLACES = (
    "name", "url", "health_path", "address", "ca_certificates", "controls", "folder", "compose_file", "env_file",
    "services", "services__web", "host", "host__address", "host__port", "host__user", "host__host_key",
    "host__private_key", "host__connect_timeout", "on_call", "on_call__primary", "on_call__stakeholders", "mailbox",
    "mailbox__host", "mailbox__security", "mailbox__sender", "mailbox__password", "gates", "gates__reboot",
    "disk_limit", "sentry_url",
)  # fmt: skip
values = st.one_of(
    hostile.text, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.just([]),
    st.just({}),
    st.dictionaries(st.sampled_from(["env", "file", "block_", "name"]), hostile.text, max_size=2),
    st.lists(hostile.text, max_size=2),
)  # fmt: skip


@given(st.sampled_from(PLACES), values)
def test_whatever_a_file_holds_is_a_site_or_one_readable_error(folder: Path, place: str, value: Any) -> None:
    try:
        site_file.read(write(folder, **{place: value}))
    except ConfigError as error:
        assert error.cure
        assert sample.private_key().splitlines()[1] not in str(error)


@pytest.mark.usefixtures("prefect_server")
def test_a_registered_site_is_loaded_as_it_was_written_and_the_file_wins_later() -> None:
    site = sample.site(name="registered", mailbox__password="hunter2")
    assert site_file.register(site) == [f"guardia-{kind}/registered" for kind in ("host", "on-call", "mailbox", "site")]
    loaded = site_file.load("registered")
    assert loaded.host.private_key.get_secret_value() == sample.private_key()
    assert loaded.mailbox is not None
    assert loaded.mailbox.password.get_secret_value() == "hunter2"
    site_file.register(site.model_copy(update={"disk_limit": 50}))
    assert site_file.load("registered").disk_limit == 50
    assert "registered" in site_file.names()


@pytest.mark.usefixtures("prefect_server")
def test_every_secret_of_a_registered_site_is_loaded_as_it_was() -> None:
    host = sample.site().host
    database = {"name": "d", "user": "u", "password": "hunter2"}
    store = {"bucket": "abc", "access_key_id": "k", "secret_access_key": "hunter3", "encryption_key": KEY}
    site = sample.site(name="secretive", database=database, backups=store, drill={"host": host.model_dump()})
    site_file.register(site)
    loaded = site_file.load("secretive")
    assert loaded.backups and loaded.database and loaded.drill.host
    assert loaded.backups.encryption_key == SecretStr(KEY)
    assert loaded.backups.secret_access_key == SecretStr("hunter3")
    assert loaded.database.password == SecretStr("hunter2")
    assert loaded.drill.host.private_key == host.private_key


@pytest.mark.usefixtures("prefect_server")
def test_a_site_that_is_not_registered_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"There is no site 'other'; registered: .*\. .*guardia apply"):
        site_file.load("other")


@pytest.mark.usefixtures("prefect_server")
def test_a_block_that_was_spoilt_in_the_ui_is_named_with_its_field() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import BlockDocumentUpdate

    site_file.register(sample.site(name="spoilt"))
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name("spoilt", "guardia-mailbox")
        client.update_block_document(document.id, BlockDocumentUpdate(data={"port": 0}))
    with pytest.raises(
        ConfigError, match=r"blocks of spoilt have 1 problem: mailbox\.port: .*greater than or equal to 1"
    ):
        site_file.load("spoilt")


@pytest.mark.usefixtures("prefect_server")
def test_a_secret_may_be_in_a_block_that_is_there(folder: Path) -> None:
    from prefect.blocks.system import Secret

    Secret(value="hunter2").save("mail-password")
    site = site_file.read(write(folder, mailbox__password={"block": "mail-password"}))
    assert site.mailbox is not None
    assert site.mailbox.password.get_secret_value() == "hunter2"
    with pytest.raises(ConfigError, match="there is no Secret block 'nowhere'"):
        site_file.read(write(folder, mailbox__password={"block": "nowhere"}))
