"""Docker leaves its rules and bridges behind when it stops; the private engine's are taken away again."""

import json
import re
import shlex
import subprocess

CHAINS = ("DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER")


def forward_policy() -> str:
    """What happens to forwarded packets that no rule speaks of; Docker makes it DROP and leaves it so."""
    return _iptables("-S", "FORWARD").partition("\n")[0].split()[-1]


def clean(networks: str, policy: str) -> None:
    """Delete Docker's rules, its chains and the bridges in `networks` (the beginning of their addresses).

    Only for a machine on which no other Docker engine runs: the chains are shared.
    """
    for table in ("filter", "nat"):
        for rule in _iptables("-t", table, "-S").splitlines():
            if rule.startswith("-A") and re.search(r"-j DOCKER|-A DOCKER|guardia-lab|br-[0-9a-f]{12}", rule):
                _iptables("-t", table, "-D", *shlex.split(rule)[1:])
        for chain in CHAINS:
            _iptables("-t", table, "-F", chain)
            _iptables("-t", table, "-X", chain)
    _iptables("-P", "FORWARD", policy)
    for link in json.loads(_run("ip", "-json", "address") or "[]"):
        if any(address["local"].startswith(networks) for address in link.get("addr_info", [])):
            _run("ip", "link", "delete", link["ifname"])


def _iptables(*words: str) -> str:
    return _run("iptables", "--wait", *words)


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
