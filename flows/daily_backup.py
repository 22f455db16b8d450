"""Daily backup: a dump of the database in the bucket, with a manifest of what is in it.

1. Check space and connection: what cannot be backed up exactly is refused.
2. Dump with the container's own `pg_dump` and take the manifest in the same snapshot, streamed over SSH into the
   bucket: hashed, encrypted if there is a key, and copied to a folder on the VPS while space allows.
3. Write the manifest last: it is the commit mark, and a backup without one does not exist.
4. Only after that, remove what retention lets go.

Serves the guide's "Backup Failed", step 2: run a manual backup.
"""

from blocks.site import Site
from flows.backup_steps import back_up
from flows.job import Ended, job


@job()
def daily_backup(site: Site) -> Ended:
    """Back up the database."""
    return Ended(name="Backed up", words=f"The backup {back_up(site)} is in the bucket.")
