"""Every Docker Compose command that Guardia runs, and what its answers mean."""

import json
from typing import Any

from pydantic import BaseModel

from blocks.errors import CommandError, CommandFailed, CommandTimedOut, ConfigError, GuardiaError
from blocks.site import Site
from tasks import docker, ssh, timeline
from tasks.command import Command, Plan
from tasks.docker import LOG_LINES, QUICK, Leftovers
from tasks.masking import env_secrets, mask
from tasks.steps import act, look

# --- commands -------------------------------------------------------------------------------------------------


def compose(site: Site, *words: str, changes: bool = False, timeout: int = 60) -> Command:
    """`docker compose -f FILE --env-file FILE WORDS` with absolute paths, so that no `cd` is needed."""
    env = ("--env-file", f"{site.folder}/{site.env_file}") if site.env_file else ()
    file = f"{site.folder}/{site.compose_file}"
    return Command(("docker", "compose", "-f", file, *env, *words), changes=changes, timeout=timeout)


def ps(site: Site, *services: str) -> Command:
    """State and health of the containers of these services, or of all of the site, stopped ones too."""
    return compose(site, "ps", "--all", "--format", "json", *services, timeout=QUICK)


def config_services(site: Site) -> Command:
    """The services that the compose file names; needs no daemon."""
    return compose(site, "config", "--services", timeout=QUICK)


def logs(site: Site, service: str) -> Command:
    """The last lines of one service's log, with the time of each."""
    words = ("logs", "--no-color", "--timestamps", f"--tail={LOG_LINES}", service)
    return compose(site, *words, timeout=QUICK)


def restart(site: Site, *services: str) -> Command:
    """Restart these services, or all, stopped ones too."""
    return compose(site, "restart", *services, changes=True, timeout=180)


def stop(site: Site, *services: str) -> Command:
    """Stop these services; Docker does not start them again by itself."""
    return compose(site, "stop", *services, changes=True, timeout=180)


def start(site: Site, *services: str) -> Command:
    """Create and start what is missing of these services and what they need, or of all.

    It leaves alone what runs, builds nothing, and waits for a database that is checked for health.
    """
    return compose(site, "up", "--detach", "--no-build", "--no-recreate", *services, changes=True, timeout=180)


def env_file(site: Site) -> Command:
    """The site's env file, read only to know which words must be masked."""
    return Command(("cat", f"{site.folder}/{site.env_file}"), timeout=QUICK)


# --- looks ----------------------------------------------------------------------------------------------------


class Container(BaseModel):
    """One container of the site; `health` is empty if it has no health check."""

    service: str
    name: str
    state: str
    health: str = ""
    exit_code: int = 0

    @property
    def ok(self) -> bool:
        """Running, and not known to be unhealthy."""
        return self.state == "running" and self.health in {"", "healthy"}

    @property
    def words(self) -> str:
        """For the timeline."""
        health = f", {self.health}" if self.health else ""
        code = f" ({self.exit_code})" if self.state == "exited" else ""
        return f"{self.service} {self.state}{code}{health}"


class Services(BaseModel):
    """The site's containers, or why Docker would not say."""

    containers: list[Container] = []
    missing: list[str] = []
    silent: str = ""

    @property
    def docker_answers(self) -> bool:
        """Whether the docker daemon could be asked at all."""
        return not self.silent

    @property
    def ok(self) -> bool:
        """All there and well."""
        return self.docker_answers and not self.missing and all(c.ok for c in self.containers)

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.silent:
            return f"Docker does not answer: {self.silent}"
        words = [c.words for c in self.containers] + [f"{service} has no container" for service in self.missing]
        return "; ".join(words)


class Stopped(BaseModel):
    """Whether a service is stopped, and what Docker says of it."""

    ok: bool
    summary: str


class Logs(BaseModel):
    """The last lines of each service's log, secrets masked."""

    text: str
    lines: dict[str, int]

    @property
    def summary(self) -> str:
        """How many lines of each."""
        return ", ".join(f"{service}: {count} lines" for service, count in self.lines.items())


@look("Check all services")
def services(site: Site) -> Services:
    """State and health of each container; a silent docker daemon is a finding, a wrong site file is an error.

    Raises ConfigError for a missing compose file, an unknown service, or a VPS without Docker. (Complete Site
    Down, step 3.)
    """
    return _services(site)


@look("Check the database's container")
def database_state(site: Site) -> Services:
    """The same for the database alone. (Database Connection Lost, step 1.)"""
    return _services(site, site.services.db)


@look("See whether the web service is still stopped")
def web_state(site: Site) -> Stopped:
    """A restore rests on nobody's having started it. What Docker does not say counts as running."""
    found = _services(site, site.services.web)
    ok = found.docker_answers and all(c.state in {"exited", "created", "dead"} for c in found.containers)
    return Stopped(ok=ok, summary=found.summary)


@look("Read the database's log")
def database_log(site: Site) -> Logs:
    """Its last 100 lines, with secrets masked. (Database Connection Lost, steps 1 and 3.)"""
    text = read_log(site, logs(site, site.services.db), site_secrets(site))
    return Logs(text=text, lines={site.services.db: len(text.splitlines())})


@look("Read the logs of web, db and nginx")
def service_logs(site: Site, found: Services) -> Logs:
    """The last 100 lines of each service, or the docker daemon's own if it is silent, with secrets masked.

    (Complete Site Down, step 4.)
    """
    secrets = site_secrets(site)
    if found.docker_answers:
        texts = {service: read_log(site, logs(site, service), secrets) for service in site.services.all()}
    else:
        texts = {"docker": read_log(site, docker.journal(), secrets)}
    return Logs(
        text="\n\n".join(f"--- {service}\n{text}" for service, text in texts.items()),
        lines={service: len(text.splitlines()) for service, text in texts.items()},
    )


def read_log(site: Site, command: Command, secrets: frozenset[str]) -> str:
    """What a command prints of a log, or why it does not; secrets masked."""
    try:
        output = ssh.run(site.host, command)
    except CommandError as error:
        return f"(no log: {error.what})"
    return mask(output.stdout + output.stderr, secrets)


def site_secrets(site: Site) -> frozenset[str]:
    """The secret values of the site's env file, so that they can be masked wherever a log shows them."""
    if not site.env_file:
        return frozenset()
    try:
        secrets = env_secrets(ssh.run(site.host, env_file(site), quiet=True).stdout)
    except CommandError:
        return frozenset()  # without the file the patterns still mask what looks like a secret
    run = timeline.current()
    if run is not None:
        run.secrets |= secrets
    return secrets


def parse_ps(text: str) -> list[Container]:
    """What `docker compose ps --format json` says: one JSON list before Compose 2.21, one object a line since.

    Raises ConfigError for an answer that is neither.
    """
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in _lines(text)]
        return [_container(row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"`docker compose ps --format json` answered something unknown ({error}): {text[:200]!r}.",
            "Guardia knows Docker Compose 2.0 and later; check `docker compose version` on the VPS.",
        ) from None


def explain(site: Site, error: CommandFailed) -> GuardiaError:
    """What a failing docker command means, as an error that names the cure."""
    path, host = f"{site.folder}/{site.compose_file}", site.host.address
    ended, _, said = error.what.replace(path, "").lower().partition(" and said: ")  # a path may hold any word
    if "status 127" in ended or ("no such file or directory" in said and "failed to run command" in said):
        return ConfigError(f"There is no `docker` on {host}.", "Install Docker there, or correct [host].")
    if "unknown shorthand flag" in said or "is not a docker command" in said or "unknown flag" in said:
        return ConfigError(f"{host} has no Compose plugin, or too old a one ({error.what}).", "Install Compose 2.")
    if "no such file or directory" in said or "couldn't find env file" in said:
        return ConfigError(
            f"{path} or {site.env_file} is not on {host} ({error.what}).",
            "Correct folder, compose_file and env_file in the site file.",
        )
    if "permission denied" in said:
        return ConfigError(f"{site.host.user} may not use Docker on {host}.", "Add the user to the group docker.")
    if "yaml" in said or "validating" in said or "invalid" in said:
        return ConfigError(f"{path} on {host} is not a valid compose file ({error.what}).", "Fix it there.")
    return error


# --- acts -----------------------------------------------------------------------------------------------------


@act("Restart all services", gate="restart")
def restart_services(site: Site, attempt: int = 1) -> Plan:
    """Restart every service of the site. (Complete Site Down, step 5.)"""
    return Plan(
        what="Restart all services" if attempt == 1 else "Restart all services once more",
        where=site.host.address,
        commands=(docker.ping(), restart(site)),
        cost="Requests fail for some seconds. No data is lost.",
    )


@act("Restart the database", gate="restart")
def restart_database(site: Site) -> Plan:
    """Restart the database alone. (Database Connection Lost, step 2.)"""
    return Plan(
        what="Restart the database",
        where=site.host.address,
        commands=(docker.ping(), restart(site, site.services.db)),
        cost="Transactions under way are lost; what was committed is not.",
    )


@act("Stop the web service", gate="stop_web")
def stop_web(site: Site, attempt: int = 1) -> Plan:
    """Stop all writes. (Data Loss / Corruption, step 1.)"""
    del attempt
    return Plan(
        what="Stop the web service",
        where=site.host.address,
        commands=(stop(site, site.services.web),),
        cost="Users see an error page until it is started again.",
    )


@act("Start the web service", gate="restart")
def start_web(site: Site) -> Plan:
    """Resume service. (Data Loss / Corruption, step 6.)"""
    return _start_web(site)


@act("Start the web service again as it was", gate="restart")
def start_web_again(site: Site, attempt: int = 1) -> Plan:
    """Resume service after what was to be done in between failed or was refused."""
    del attempt
    return _start_web(site)


def _start_web(site: Site) -> Plan:
    return Plan(
        what="Start the web service",
        where=site.host.address,
        commands=(start(site, site.services.web),),
        cost="None.",
    )


@act("Delete unused Docker data", gate="prune", patience=15, by=("site",))
def prune_leftovers(site: Site, found: Leftovers) -> Plan:
    """Free disk space. What the prune took of the site's own stopped containers is created again.

    (Complete Site Down, step 6.)
    """
    facts = tuple(f"deletes the stopped container {name}" for name in found.containers)
    facts += tuple(f"deletes the dangling image {image}" for image in found.images)
    facts += ("Docker did not say what it would delete",) if found.silent else ()
    return Plan(
        what="Delete unused Docker data: stopped containers, dangling images, unused networks, build cache",
        where=site.host.address,
        commands=(docker.ping(), docker.prune(), start(site)),
        cost="What stopped containers wrote outside volumes is lost for ever; volumes and tagged images stay.",
        facts=facts,
    )


def _services(site: Site, *wanted: str) -> Services:
    try:
        named = ssh.run(site.host, config_services(site)).stdout.split()
        unknown = [service for service in site.services.all() if service not in named]
        if unknown:
            raise ConfigError(
                f"{site.folder}/{site.compose_file} on {site.host.address} has no service {', '.join(unknown)}; "
                f"it has {', '.join(sorted(named))}.",
                "Correct [services] in the site file.",
            )
        containers = parse_ps(ssh.run(site.host, ps(site, *wanted)).stdout)
    except CommandTimedOut as error:
        return Services(silent=error.what)
    except CommandFailed as error:
        cause = explain(site, error)
        if isinstance(cause, ConfigError):
            raise cause from error
        return Services(silent=cause.what)
    there = {container.service for container in containers}
    missing = [service for service in wanted or site.services.all() if service not in there]
    return Services(containers=containers, missing=missing)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _container(row: dict[str, Any]) -> Container:
    return Container(
        service=row["Service"],
        name=row["Name"],
        state=row["State"].lower(),
        health=(row.get("Health") or "").lower(),
        exit_code=row.get("ExitCode") or 0,
    )
