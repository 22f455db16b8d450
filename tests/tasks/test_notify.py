"""Messages arrive through a real mail server, and one that cannot be sent stops nobody."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from blocks.mailbox import Mailbox
from blocks.site import Site
from tasks import notify, timeline
from tests import sample
from tests.mail_server import PASSWORD, MailServer


@pytest.fixture
def run() -> Iterator[timeline.Run]:
    run = timeline.Run(id=uuid4(), playbook="test", site=sample.site(), planning=True)
    timeline.begin(run)
    yield run
    timeline.end()


def site_with(settings: dict[str, object]) -> Site:
    return sample.site(mailbox=settings)


def test_a_message_arrives_as_it_was_written(mail: MailServer, run: timeline.Run) -> None:
    site = site_with(mail.settings)
    body = "Impact: ¿502?\n\n  indented & <b>not HTML</b>\n"
    notify.tell(site, site.on_call.told("P1"), "INCIDENT ALERT - P1: á", body, "initial")
    assert [message["To"] for message in mail.messages] == ["ana@tandil.site", "beto@tandil.site", "caro@tandil.site"]
    first = mail.messages[0]
    assert (first["Subject"], first["From"]) == ("INCIDENT ALERT - P1: á", "Guardia <guardia@tandil.site>")
    assert first.get_content_type() == "text/plain"
    assert first.get_content().replace("\r\n", "\n").strip() == body.strip()


def test_each_message_is_on_the_timeline(mail: MailServer, run: timeline.Run) -> None:
    site = site_with(mail.settings)
    notify.tell(site, [site.on_call.primary], "Subject", "Body", "update")
    (entry,) = run.entries
    assert (entry.what, entry.outcome, entry.ok) == ("Ana (ana@tandil.site)", "Subject", True)
    assert (entry.text, entry.detail) == ("Body", {"template": "update"})


BROKEN = {"a wrong password": {"password": "hunter2"}, "a dead server": {"port": 9}}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_message_that_cannot_be_sent_is_recorded_without_the_password_and_raises_nothing(
    mail: MailServer, run: timeline.Run, broken: dict[str, object]
) -> None:
    site = site_with(mail.settings | broken)
    problems = notify.tell(site, site.on_call.told("P1"), "Subject", "Body", "initial")
    assert mail.messages == []
    assert [f"Subject {problem}" for problem in problems] == [entry.outcome for entry in run.entries]
    assert [entry.ok for entry in run.entries] == [False] * 3
    for entry in run.entries:
        assert entry.outcome.startswith("Subject was not sent: NotificationError: [WARNING]: Connection error")
        assert str((mail.settings | broken)["password"]) not in entry.outcome


@pytest.mark.usefixtures("prefect_server")
def test_a_channel_that_fails_does_not_stop_the_next_one(mail: MailServer, run: timeline.Run) -> None:
    site = sample.site(
        mailbox=mail.settings,
        on_call__primary={"name": "Ana", "channels": ["slack-webhook/no-such", "ana@tandil.site"]},
    )
    notify.tell(site, [site.on_call.primary], "Subject", "Body", "initial")
    assert [entry.ok for entry in run.entries] == [False, True]
    assert len(mail.messages) == 1


def on_call(*, primary: list[str], secondary: list[str] | None) -> dict[str, object]:
    people: dict[str, object] = {"primary": {"name": "Ana", "channels": primary}}
    return people | ({"secondary": {"name": "Beto", "channels": secondary}} if secondary else {})


NO_SUCH = "slack-webhook/no-such"
ALARMS = {
    "the primary": (on_call(primary=["ana@x.site"], secondary=["beto@x.site"]), ["ana@x.site"]),
    "the primary, by one channel": (on_call(primary=[NO_SUCH, "ana@x.site"], secondary=["b@x.site"]), ["ana@x.site"]),
    "the secondary": (on_call(primary=[NO_SUCH], secondary=["beto@x.site"]), ["beto@x.site"]),
    "nobody": (on_call(primary=[NO_SUCH], secondary=[NO_SUCH]), []),
    "nobody, without a secondary": (on_call(primary=[NO_SUCH], secondary=None), []),
}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("people", "reached"), ALARMS.values(), ids=ALARMS)
def test_an_alarm_goes_to_the_primary_or_else_to_the_secondary_or_else_into_the_log(
    mail: MailServer, caplog: pytest.LogCaptureFixture, people: dict[str, object], reached: list[str]
) -> None:
    site = sample.site(mailbox=mail.settings, on_call=people)
    assert notify.alarm(site, "ALARM", "The disk is full.") is bool(reached)
    assert [message["To"] for message in mail.messages] == reached
    logged = "No on-call could be told" in caplog.text and "The disk is full." in caplog.text
    assert logged is not bool(reached)


def test_outside_a_run_a_message_that_cannot_be_sent_is_logged_without_secrets(
    mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    site = site_with(mail.settings | {"password": "hunter2"})
    notify.tell(site, [site.on_call.primary], "Subject", "Body", "alarm")
    assert "Ana (ana@tandil.site): Subject was not sent: NotificationError" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_log_in_sends_nothing(mail: MailServer) -> None:
    mailbox = Mailbox.model_validate(mail.settings)
    assert mailbox.log_in() == f"127.0.0.1:{mail.port} accepts the account (nothing was sent)"
    assert mail.messages == []


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_log_in_that_fails_says_so_without_the_password(mail: MailServer, broken: dict[str, object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        Mailbox.model_validate(mail.settings | broken).log_in()
    assert PASSWORD not in str(caught.value)


def test_the_password_is_in_no_representation_of_a_channel(mail: MailServer) -> None:
    block = notify.notifier(site_with(mail.settings), "ana@tandil.site")
    assert PASSWORD not in repr(block)
    assert "battery" not in repr(block)


URLS = {
    "starttls": "mailtos://mail.test:587?smtp=mail.test&from=guardia%40tandil.site&name=Guardia&to=a%2Bb%40x"
    "&mode=starttls&format=text&verify=yes",
    "ssl": "mailtos://mail.test:587?smtp=mail.test&from=guardia%40tandil.site&name=Guardia&to=a%2Bb%40x"
    "&mode=ssl&format=text&verify=yes",
    "none": "mailto://mail.test:587?smtp=mail.test&from=guardia%40tandil.site&name=Guardia&to=a%2Bb%40x"
    "&mode=insecure&format=text&verify=yes",
}


@pytest.mark.parametrize(("security", "url"), URLS.items())
def test_the_address_of_a_recipient_says_how_the_connection_is_encrypted(security: str, url: str) -> None:
    mailbox = Mailbox.model_validate({"host": "mail.test", "sender": "guardia@tandil.site", "security": security})
    assert mailbox.apprise_url("a+b@x").get_secret_value() == url


def test_every_character_of_an_account_survives_the_address() -> None:
    mailbox = Mailbox.model_validate({"host": "mail.test", "sender": "a@b", "user": "ana@x/y", "password": "p:@/?#& %"})
    assert "://ana%40x%2Fy:p%3A%40%2F%3F%23%26%20%25@mail.test:587?" in mailbox.apprise_url("c@d").get_secret_value()
