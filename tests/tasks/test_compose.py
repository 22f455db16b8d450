"""Docker Compose: the exact commands, what their answers mean, and which error a failing one becomes."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from blocks.errors import CommandFailed, ConfigError
from blocks.site import Site
from tasks import compose, docker, ssh, timeline
from tasks.command import Command, programs
from tests import sample
from tests.ssh_server import SshServer

COMPOSE = "docker compose -f /root/ferreteria/docker-compose.prod.yml --env-file /root/ferreteria/.env.prod"
SITE = sample.site()

COMMANDS = {
    "ps": (compose.ps(SITE), f"{COMPOSE} ps --all --format json"),
    "services": (compose.config_services(SITE), f"{COMPOSE} config --services"),
    "logs": (compose.logs(SITE, "web"), f"{COMPOSE} logs --no-color --timestamps --tail=100 web"),
    "restart": (compose.restart(SITE), f"{COMPOSE} restart"),
    "start": (compose.start(SITE), f"{COMPOSE} up --detach --no-build --no-recreate"),
    "ping": (docker.ping(), "docker version --format '{{.Server.Version}}'"),
    "prune": (docker.prune(), "docker system prune -f"),
    "without an env file": (
        compose.restart(sample.site(env_file=None)),
        "docker compose -f /root/ferreteria/docker-compose.prod.yml restart",
    ),
    "hostile names": (
        compose.ps(sample.site(folder="/root/a b", compose_file="$(reboot).yml", env_file="it's")),
        "docker compose -f '/root/a b/$(reboot).yml' --env-file '/root/a b/it'\"'\"'s' ps --all --format json",
    ),
}


@pytest.mark.parametrize(("command", "line"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_exactly_this_line(command: Command, line: str) -> None:
    assert command.line == line


def test_only_restart_start_and_prune_change_anything() -> None:
    assert {name for name, (command, _) in COMMANDS.items() if command.changes} == {
        "restart", "start", "prune", "without an env file",
    }  # fmt: skip


def test_nothing_deletes_a_volume_or_a_tagged_image() -> None:
    plans = (
        compose.restart_services.plan(SITE),
        compose.prune_leftovers.plan(SITE, docker.Leftovers(containers=[], images=[])),
    )
    words = {word for plan in plans for step in plan.commands for run in programs(step) for word in run.argv}
    assert words.isdisjoint({"--volumes", "-v", "-a", "--all", "down", "rm", "volume"})


ROW = {"Service": "web", "Name": "shop-web-1", "State": "Running", "Health": "healthy", "ExitCode": 0, "Extra": []}
DOWN = ROW | {"Service": "db", "Name": "shop-db-1", "State": "exited", "Health": "", "ExitCode": 137}
ANSWERS = {
    "one object a line": f"{json.dumps(ROW)}\n{json.dumps(DOWN)}\n",
    "one list": f"{json.dumps([ROW, DOWN])}\n",
    "with empty lines": f"\n{json.dumps(ROW)}\n\n{json.dumps(DOWN)}",
}


@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS)
def test_old_and_new_composes_are_understood(text: str) -> None:
    web, db = compose.parse_ps(text)
    assert (web.words, web.ok) == ("web running, healthy", True)
    assert (db.words, db.ok) == ("db exited (137)", False)


@pytest.mark.parametrize("text", ["", "[]", "\n"])
def test_no_container_is_an_answer_too(text: str) -> None:
    assert compose.parse_ps(text) == []


@pytest.mark.parametrize("text", ["NAME STATE", '{"Service": "web"}', "[1]", '{"Service":', '{"State": null}', "null"])
def test_an_unknown_answer_is_an_error_that_quotes_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"answered something unknown .*: .*check `docker compose version`"):
        compose.parse_ps(text)


@pytest.fixture
def site(ssh_server: SshServer) -> Iterator[Site]:
    host = ssh_server.host()
    yield sample.site(host=host)
    ssh.close(host)


def stub_docker(server: SshServer, **answers: str) -> None:
    """A stub of docker that answers each subcommand as said; one that is not named fails."""
    cases = "\n".join(f"*{word}*) {script};;" for word, script in answers.items())
    server.stub("docker", f'case "$*" in\n{cases}\n*) echo "no such thing" >&2; exit 9;;\nesac')


def say(*rows: dict[str, object]) -> str:
    return "cat <<'END'\n" + "\n".join(json.dumps(row) for row in rows) + "\nEND\n"


NAMED = {"services": "echo web; echo db; echo nginx; echo redis"}


def test_services_are_listed_with_those_that_have_no_container(ssh_server: SshServer, site: Site) -> None:
    stub_docker(ssh_server, **NAMED, ps=say(ROW, DOWN))
    found = compose.services.fn(site)
    assert found.summary == "web running, healthy; db exited (137); nginx has no container"
    assert found.docker_answers
    assert not found.ok


def test_a_site_whose_containers_all_run_is_ok(ssh_server: SshServer, site: Site) -> None:
    stub_docker(ssh_server, **NAMED, ps=say(*(ROW | {"Service": service} for service in ("web", "db", "nginx"))))
    assert compose.services.fn(site).ok


WEB: dict[str, tuple[str, bool]] = {
    "web exited": (say(ROW | {"State": "exited", "Health": ""}), True),
    "web has no container": (say(), True),
    "web running": (say(ROW), False),
    "web restarting": (say(ROW | {"State": "restarting", "Health": ""}), False),
    "Docker does not answer": ("echo Cannot connect to the Docker daemon >&2; exit 1", False),
}


@pytest.mark.parametrize("words", WEB)
def test_a_service_is_stopped_only_if_docker_says_so(ssh_server: SshServer, site: Site, words: str) -> None:
    answer, ok = WEB[words]
    stub_docker(ssh_server, **NAMED, ps=answer)
    found = compose.web_state.fn(site)
    assert found.ok is ok
    assert words in found.summary


def test_a_service_that_the_compose_file_does_not_have_is_an_error_in_the_site_file(
    ssh_server: SshServer, site: Site
) -> None:
    stub_docker(ssh_server, services="echo app; echo db")
    with pytest.raises(ConfigError, match=r"no service web, nginx; it has app, db\. Correct \[services\]"):
        compose.services.fn(site)


SAID = {
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?": None,
    "no such file or directory: /root/ferreteria/x": "Correct folder, compose_file and env_file",
    "couldn't find env file: /root/ferreteria/.env.prod": "Correct folder, compose_file and env_file",
    "unknown shorthand flag: 'f' in -f": "Install Compose 2",
    "docker: 'compose' is not a docker command.": "Install Compose 2",
    "permission denied while trying to connect to the Docker daemon socket": "Add the user to the group docker",
    "yaml: line 3: mapping values are not allowed in this context": "not a valid compose file",
    "validating /root/ferreteria/x.yml: services.web must be a mapping": "not a valid compose file",
    "service web has neither an image nor a build context: invalid compose project": "not a valid compose file",
}


@pytest.mark.parametrize("file", ["docker-compose.prod.yml", "compose.yaml", "invalid permission denied"])
@pytest.mark.parametrize(("said", "cure"), SAID.items())
def test_a_failing_docker_command_is_explained_by_what_it_said(said: str, cure: str | None, file: str) -> None:
    site = sample.site(compose_file=file)
    warned = f'time=now level=warning msg="/root/ferreteria/{file}: the attribute `version` is obsolete"\n{said}'
    for words in (said, warned):
        what = f"`{compose.ps(site).line}` on vps.test ended with exit status 1 and said: {words}"
        explained = compose.explain(site, CommandFailed(what))
        assert isinstance(explained, ConfigError) == (cure is not None)
        assert cure is None or cure in str(explained)


def test_a_vps_without_docker_is_an_error(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"There is no `docker` on 127\.0\.0\.1\. Install Docker"):
        compose.services.fn(site)


def test_a_dead_docker_daemon_is_a_finding_and_no_error(ssh_server: SshServer, site: Site) -> None:
    stub_docker(ssh_server, **NAMED, ps="echo Cannot connect to the Docker daemon >&2; exit 1")
    found = compose.services.fn(site)
    assert not found.docker_answers
    assert "Docker does not answer: `docker compose" in found.summary
    assert "Cannot connect to the Docker daemon" in found.summary


def test_a_docker_daemon_that_hangs_is_a_finding_too(
    ssh_server: SshServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "QUICK", 1)
    stub_docker(ssh_server, **NAMED, ps="sleep 20")
    assert "did not end within 1 s" in compose.services.fn(site).silent


def test_the_logs_of_all_services_are_kept_with_the_sites_secrets_masked(ssh_server: SshServer, site: Site) -> None:
    site = site.model_copy(update={"folder": str(ssh_server.work)})
    (ssh_server.work / ".env.prod").write_text("POSTGRES_PASSWORD=xK4j-2vQ\n")
    stub_docker(ssh_server, web="echo connecting with xK4j-2vQ; echo failed >&2", nginx="echo up")
    run = timeline.Run(id=uuid4(), playbook="test", site=site, planning=True)
    timeline.begin(run)
    try:
        found = compose.service_logs.fn(site, compose.Services())
    finally:
        timeline.end()
    assert "xK4j-2vQ" not in found.text
    assert "--- web\nconnecting with •••\nfailed\n" in found.text
    assert "--- db\n(no log: `docker compose" in found.text
    assert found.summary == "web: 2 lines, db: 1 lines, nginx: 1 lines"
    assert run.secrets == {"xK4j-2vQ"}
    assert not any("xK4j-2vQ" in entry.model_dump_json() for entry in run.entries)


def test_a_silent_docker_daemon_is_asked_for_nothing_but_its_journal(ssh_server: SshServer, site: Site) -> None:
    ssh_server.stub("docker")
    ssh_server.stub("journalctl", "echo dockerd is out of memory")
    found = compose.service_logs.fn(site, compose.Services(silent="no answer"))
    assert found.text == "--- docker\ndockerd is out of memory\n"
    assert ssh_server.calls("docker") == []


def test_a_prune_names_what_it_deletes_and_starts_the_sites_own_containers_again() -> None:
    plan = compose.prune_leftovers.plan(SITE, docker.Leftovers(containers=["old"], images=["1a"]))
    assert [command.line for command in plan.commands] == [
        "docker version --format '{{.Server.Version}}'",
        "docker system prune -f",
        f"{COMPOSE} up --detach --no-build --no-recreate",
    ]
    assert plan.facts == ("deletes the stopped container old", "deletes the dangling image 1a")


def test_a_restart_asks_docker_first_and_loses_no_data() -> None:
    plan = compose.restart_services.plan(SITE)
    assert [command.line for command in plan.commands] == [
        "docker version --format '{{.Server.Version}}'",
        f"{COMPOSE} restart",
    ]
    again = compose.restart_services.plan(SITE, 2)
    assert (again.commands, again.hash == plan.hash) == (plan.commands, False), "one approval would do for both"
