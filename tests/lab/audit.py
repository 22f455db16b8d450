"""What changed on a machine since a mark, so that a test can say "nothing changed"."""

from collections.abc import Callable
from dataclasses import dataclass, field

# One reading, one line a fact, "kind key: value"; reading it leaves none of its own traces.
READING = r"""
echo "boot id: $(cat /proc/sys/kernel/random/boot_id)"
docker ps -aq --no-trunc | xargs -r docker inspect --format \
    'container {{.Name}}: {{.Id}} {{.State.Status}} {{.State.StartedAt}} restarts={{.RestartCount}} {{.Image}}'
docker images -aq --no-trunc | sort -u | sed 's/.*/image &: here/'
docker volume ls -q | sed 's/.*/volume &: here/'
docker network ls --no-trunc --format 'network {{.Name}}: {{.ID}}'
for unit in docker ssh cron; do
    echo "service $unit: since $(systemctl show $unit --property=ActiveEnterTimestamp --value)"
done
find /root /etc /var/backups /var/spool/cron -xdev -not -path '*/.git/*' -type f -printf 'file %p: %s %C@\n'
docker exec -i ferreteria_db_prod psql -U ferreteria_user -d ferreteria_db -qAt <<'SQL' 2>/dev/null
SELECT 'database ' || datname || ': ' || oid FROM pg_database;
SELECT 'table ' || relname || ': ' || n_tup_ins || ' inserted ' || n_tup_upd || ' updated ' || n_tup_del || ' deleted'
FROM pg_stat_user_tables;
SQL
true
"""
EVENT = (
    "{{.Type}} {{.Action}} {{with .Actor.Attributes.name}}{{.}}{{else}}{{$.Actor.ID}}{{end}}"
    "{{with .Actor.Attributes.container}} of {{.}}{{end}}"
)
# Looks leave these: health checks and `compose exec` are execs, and they start and end processes.
QUIET = ("exec_create", "exec_start", "exec_die", "exec_detach", "health_status", "top")


@dataclass(frozen=True)
class Audit:
    """A mark: the machine's state when it was taken."""

    shell: Callable[[str], str]
    facts: dict[str, str] = field(default_factory=dict)
    since: str = ""

    @classmethod
    def mark(cls, shell: Callable[[str], str]) -> "Audit":
        """Take a mark through `shell`, which runs a script on the machine and returns what it printed."""
        return cls(shell, _facts(shell), shell("date +%s.%N").strip())

    def events(self) -> list[str]:
        """What the machine's Docker did since the mark, and to which container, without what looking causes."""
        script = f"docker events --since {self.since} --until $(date +%s.%N) --format '{EVENT}'"
        lines = [line for line in self.shell(script).splitlines() if not line.split(" ")[1].startswith(QUIET)]
        for container in self.shell("docker ps --all --no-trunc --format '{{.ID}} {{.Names}}'").splitlines():
            number, name = container.split(" ")
            lines = [line.replace(number, name) for line in lines]
        return lines

    def journal(self) -> list[str]:
        """What the machine's journal says since the mark."""
        return self.shell(f"journalctl -q -o cat --since @{self.since}").splitlines()

    def changes(self) -> list[str]:
        """Everything that is not as it was at the mark, one sentence each; empty when nothing changed."""
        now = _facts(self.shell)
        gone = [f"{key} is gone" for key in self.facts.keys() - now.keys()]
        new = [f"{key} is new: {now[key]}" for key in now.keys() - self.facts.keys()]
        other = [f"{key} was {was}, is {now[key]}" for key, was in self.facts.items() if now.get(key, was) != was]
        return sorted(gone + new + other) + [f"docker: {event}" for event in self.events()]


def _facts(shell: Callable[[str], str]) -> dict[str, str]:
    pairs = (line.partition(": ") for line in shell(READING).splitlines())
    return {key: value for key, _, value in pairs if value}
