"""The ssh command line for a practice machine: its key, its pinned host key, nobody else's settings."""

from tests.lab.vps import PracticeVps


def ssh_argv(vps: PracticeVps, *command: str) -> list[str]:
    """The ssh command that runs `command` as root on the machine, or opens a shell when there is none."""
    known = vps.ca_file.with_name("known_hosts")
    known.write_text(f"[127.0.0.1]:{vps.ssh_port} {vps.host_key}\n")
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known),
        "IdentitiesOnly": "yes",
        "ConnectTimeout": "5",
        "LogLevel": "ERROR",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    target = ["-i", str(vps.key_file), "-p", str(vps.ssh_port), "root@127.0.0.1"]
    return ["ssh", "-F", "none", *words, *target, *command]
