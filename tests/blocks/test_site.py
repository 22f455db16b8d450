"""What the blocks accept, and what they refuse by the name of the field."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks.on_call import OnCall, Person, Severity
from tests import sample

KEY = sample.host_key()

ACCEPTED = [
    ("host__host_key", KEY, KEY),
    ("host__host_key", f"vps.test {KEY} root@vps\n", KEY),
    ("host__host_key", f"[vps.test]:2222 {KEY}", KEY),
    ("host__address", "2001:db8::1", "2001:db8::1"),
    ("host__address", "vps-1.tandil.site", "vps-1.tandil.site"),
    ("folder", "/root/ferreteria/", "/root/ferreteria"),
    ("folder", "/srv/my shop", "/srv/my shop"),
    ("env_file", None, None),
    ("name", "a", "a"),
]


@pytest.mark.parametrize(("place", "given", "kept"), ACCEPTED, ids=range(len(ACCEPTED)))  # a key is new each time
def test_a_good_value_is_kept_in_its_plain_form(place: str, given: Any, kept: Any) -> None:
    found: Any = sample.site(**{place: given})
    for part in place.split("__"):
        found = getattr(found, part)
    assert found == kept


REFUSED = [
    ("name", "Tandil", "pattern"),
    ("name", "tandil-", "pattern"),
    ("name", "a" * 41, "pattern"),
    ("name", "tandil\n", "pattern"),
    ("url", "tandil.site", "URL"),
    ("url", "ftp://tandil.site", "URL"),
    ("health_path", "health", "pattern"),
    ("health_path", "/a b", "pattern"),
    ("controls", [], "at least 1"),
    ("folder", "ferreteria", "absolute path on the VPS"),
    ("folder", "/root/../etc", "without '..'"),
    ("folder", "/root/a\nb", "absolute path"),
    ("compose_file", "../x.yml", "plain file name"),
    ("compose_file", "-f", "plain file name"),
    ("compose_file", "", "at least 1"),
    ("env_file", "..", "plain file name"),
    ("services__web", "-web", "pattern"),
    ("services__web", "web db", "pattern"),
    ("ca_certificates", "no certificate", "certificate"),
    ("disk_limit", 0, "greater than or equal to 1"),
    ("gates__restart", "maybe", "'ask' or 'none'"),
    ("gates__refuse_after", 1, "greater than or equal to 5"),
    ("host__port", 65536, "less than or equal to 65535"),
    ("host__user", "root;reboot", "pattern"),
    ("host__user", "-oProxyCommand", "pattern"),
    ("host__address", "-oProxyCommand=x", "pattern"),
    ("host__address", "vps.test\n", "pattern"),
    ("host__host_key", "ssh-ed25519", "is not an SSH host key"),
    ("host__host_key", "ssh-ed25519 !!!", "is not an SSH host key"),
    ("host__host_key", "ssh-dss AAAA", "is not an SSH host key"),
    ("host__private_key", "hunter2", "is not a private key"),
    ("mailbox__sender", "guardia", "pattern"),
    ("mailbox__host", "smtp.test/x", "pattern"),
    ("mailbox", None, "there is no [mailbox] to send from"),
    ("on_call__primary", {"name": "", "channels": ["a@b"]}, "at least 1"),
    ("on_call__primary", {"name": "Ana\n# x", "channels": ["a@b"]}, "pattern"),
    ("on_call__primary", {"name": "Ana", "channels": []}, "at least 1"),
    ("on_call__primary", {"name": "Ana", "channels": ["ana"]}, "neither an e-mail address nor"),
    ("on_call__primary", {"name": "Ana", "channels": ["ana@x\n"]}, "neither an e-mail address nor"),
    ("on_call__primary", {"name": "Ana", "channels": ["slack-webhook/x\n"]}, "neither an e-mail address nor"),
]


@pytest.mark.parametrize(("place", "value", "why"), REFUSED)
def test_a_bad_value_is_refused_with_the_reason(place: str, value: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s)1 validation error.*{why.replace('[', chr(92) + '[')}"):
        sample.site(**{place: value})


def test_an_error_about_a_secret_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as caught:
        sample.site(host__private_key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    site = sample.site(mailbox__password="hunter2")
    assert "hunter2" not in repr(site) + str(site) + site.model_dump_json()
    assert sample.private_key().splitlines()[1] not in repr(site)


def test_the_health_check_is_under_the_url() -> None:
    assert sample.site(url="https://tandil.site/shop/").health_url == "https://tandil.site/shop/health"


ANA, BETO, CARO = (Person(name=name, channels=["a@b"]) for name in ("Ana", "Beto", "Caro"))
ALL = OnCall(primary=ANA, secondary=BETO, stakeholders=[CARO])
TOLD: list[tuple[Severity, OnCall, list[Person]]] = [
    ("P1", ALL, [ANA, BETO, CARO]),
    ("P1", OnCall(primary=ANA), [ANA]),
    ("P2", ALL, [ANA]),
    ("P3", ALL, [ANA]),
    ("P4", ALL, []),
]


@pytest.mark.parametrize(("severity", "on_call", "people"), TOLD)
def test_who_is_told_follows_the_guides_severity_table(
    severity: Severity, on_call: OnCall, people: list[Person]
) -> None:
    assert on_call.told(severity) == people
