"""Commands and plans are data, and no text in them is ever more than text."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from blocks.errors import ConfigError
from blocks.host import Host
from tasks import ssh
from tasks.command import Command, Plan
from tests import hostile
from tests.ssh_server import SshServer

PLAN = Plan("Restart", "vps.test", (Command(("docker", "restart", "a b"), changes=True),), "seconds", ("fact",))


@pytest.fixture(scope="module")
def vps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("vps")) as server:
        yield server


@pytest.fixture(scope="module")
def host(vps: SshServer) -> Iterator[Host]:
    host = vps.host()
    yield host
    ssh.close(host)


def test_a_command_is_bounded_on_the_host() -> None:
    command = Command(("docker", "ps", "--format", "{{.Names}}"), timeout=15)
    assert command.bounded == "env LC_ALL=C timeout --kill-after=5 15 docker ps --format '{{.Names}}'"


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL byte"):
        Command(("cat", "a\0b"))


words = st.lists(hostile.text.filter(lambda word: "\0" not in word), max_size=4)


@given(words)
def test_a_shell_would_split_the_line_into_exactly_the_arguments(arguments: list[str]) -> None:
    command = Command(("docker", *arguments))
    assert tuple(shlex.split(command.line)) == command.argv


@settings(max_examples=50)
@given(words)
def test_the_program_gets_exactly_the_arguments_and_nothing_else_runs(
    vps: SshServer, host: Host, arguments: list[str]
) -> None:
    vps.stub("docker")
    ssh.run(host, Command(("docker", *arguments)))
    assert vps.calls("docker") == [arguments]
    assert list(vps.work.iterdir()) == []


def test_the_canary_sings_when_a_shell_gets_it(vps: SshServer, host: Host) -> None:
    ssh._fed(host, Command(("/bin/sh", "-c", hostile.NASTY[0])), ())
    canary = vps.work / hostile.CANARY
    assert canary.exists()
    canary.unlink()


CHANGES = {
    "what": replace(PLAN, what="Reboot"),
    "where": replace(PLAN, where="other.test"),
    "commands": replace(PLAN, commands=(Command(("docker", "restart", "a", "b")),)),
    "cost": replace(PLAN, cost="minutes"),
    "facts": replace(PLAN, facts=()),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_in_a_plan_changes_its_hash(changed: Plan) -> None:
    assert changed.hash != PLAN.hash


def test_the_same_plan_has_the_same_hash_in_every_process() -> None:
    assert PLAN.hash == "36c163e69fac"
    assert replace(PLAN).hash == PLAN.hash


def test_a_plan_shows_what_it_costs_before_its_commands() -> None:
    assert PLAN.markdown == "**Cost:** seconds\n\n- `docker restart 'a b'`\n\n**In detail:**\n\n- fact"


@given(words)
def test_a_plan_shows_each_command_word_for_word(arguments: list[str]) -> None:
    command = Command(("docker", *arguments))
    blocks = MarkdownIt("commonmark").parse(replace(PLAN, commands=(command, command), facts=()).markdown)
    inside = [token for block in blocks for token in (block, *(block.children or []))]
    code = [token.content.removesuffix("\n") for token in inside if token.type in {"code_inline", "fence"}]
    shown = re.sub("\r\n?", "\n", command.line)  # Markdown knows one line end
    assert code == [shown, shown]
