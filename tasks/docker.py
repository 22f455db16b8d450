"""The docker daemon itself: whether it answers, what it said last, and what it keeps that nobody uses."""

from pydantic import BaseModel

from blocks.errors import CommandError
from blocks.site import Site
from tasks import ssh
from tasks.command import Command
from tasks.steps import look

QUICK = 8  # seconds in which a docker daemon that is well answers
LOG_LINES = 100


def ping() -> Command:
    """Whether the docker daemon answers."""
    return Command(("docker", "version", "--format", "{{.Server.Version}}"), timeout=QUICK)


def prune() -> Command:
    """Delete stopped containers, unused networks, dangling images and the build cache; never volumes."""
    return Command(("docker", "system", "prune", "-f"), changes=True, timeout=600)


def stopped_containers() -> Command:
    """The names of the containers that a prune deletes."""
    filters = [word for state in ("created", "exited", "dead") for word in ("--filter", f"status={state}")]
    return Command(("docker", "ps", "--all", *filters, "--format", "{{.Names}}"), timeout=QUICK)


def dangling_images() -> Command:
    """The ids of the images that a prune deletes."""
    words = ("docker", "image", "ls", "--filter", "dangling=true", "--format", "{{.ID}}")
    return Command(words, timeout=QUICK)


def journal() -> Command:
    """What the docker daemon itself said last: it is there when the daemon does not answer."""
    words = ("journalctl", "--no-pager", "--output=short-iso", f"--lines={LOG_LINES}", "--unit=docker.service")
    return Command(words, timeout=QUICK)


class Leftovers(BaseModel):
    """What a prune would delete, by name, or why Docker would not say."""

    containers: list[str] = []
    images: list[str] = []
    silent: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is known."""
        return not self.silent

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.silent:
            return f"Docker does not say: {self.silent}"
        return f"{len(self.containers)} stopped containers, {len(self.images)} dangling images"


@look("List what a prune would delete")
def leftovers(site: Site) -> Leftovers:
    """Stopped containers and dangling images by name: what the plan of a prune rests on."""
    try:
        containers = ssh.run(site.host, stopped_containers()).stdout.split()
        images = ssh.run(site.host, dangling_images()).stdout.split()
    except CommandError as error:
        return Leftovers(silent=error.what)
    return Leftovers(containers=sorted(containers), images=sorted(images))
