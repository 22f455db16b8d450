"""The practice machine is like a rented one: it reboots, loses power, sends mail, renews its certificate."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.lab.conftest import ssh
from tests.lab.database import COMPOSE
from tests.lab.home import LabError
from tests.lab.test_faults import wait_for
from tests.lab.vps import PracticeVps, down, find, names, up, wait_healthy

pytestmark = pytest.mark.lab


def sql(vps: PracticeVps, statement: str) -> str:
    """Run one statement in the shop's database and return what it printed."""
    psql = (
        "docker",
        "exec",
        "-i",
        "ferreteria_db_prod",
        "psql",
        "-qAt",
        "-U",
        "ferreteria_user",
        "-d",
        "ferreteria_db",
    )
    return vps.exec(*psql, input=statement).strip()


def test_a_reboot_over_ssh_changes_the_boot_id_and_the_site_comes_back(vps: PracticeVps) -> None:
    before = vps.boot_id()
    ssh(vps, "reboot")
    wait_for("a new boot id", lambda: vps.boot_id() != before)
    wait_healthy(vps, 30)
    assert ssh(vps, "cat /proc/sys/kernel/random/boot_id").stdout.strip() == vps.boot_id()


def test_a_power_cut_loses_no_committed_sale(vps: PracticeVps) -> None:
    sql(vps, "UPDATE tenant SET name = 'kept' WHERE id = 1")
    before = vps.boot_id()
    vps.power_cut()
    wait_healthy(vps, 30)
    assert vps.boot_id() != before
    assert sql(vps, "SELECT name FROM tenant WHERE id = 1") == "kept"


def test_the_machine_shows_its_own_memory_and_disk(vps: PracticeVps) -> None:
    memory, disk = ssh(vps, "free -m | awk '/Mem/ {print $2}'; df --output=size -BM / | tail -1").stdout.split()
    assert int(memory) == 1024
    assert 3500 < int(disk.removesuffix("M")) < 4200


def test_there_is_no_internet_but_the_neighbours(vps: PracticeVps) -> None:
    assert not vps.shell("ip route show default").strip()
    assert httpx.get(f"http://127.0.0.1:{vps.control_port}/", trust_env=False).status_code == 200


def test_the_shop_sends_mail_with_starttls_and_a_login(vps: PracticeVps) -> None:
    send = """
import os, smtplib
with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), timeout=10) as smtp:
    try:
        smtp.sendmail("shop@ferreteria.test", "owner@azul.test", "Subject: no login\\n\\nx")
        raise SystemExit("accepted without a login")
    except smtplib.SMTPException:
        smtp.starttls()
    smtp.login(os.environ["SMTP_USER"], os.environ["SMTP_PASSWORD"])
    smtp.sendmail("shop@ferreteria.test", "owner@azul.test", "Subject: Receipt 42\\n\\nThank you.")
"""
    vps.exec("docker", "exec", "-i", "ferreteria_web_prod", "python3", "-", input=send)
    letters = [file.read_text() for file in (vps.mail / "new").iterdir()]
    assert any("Subject: Receipt 42" in text and "owner@azul.test" in text for text in letters)
    assert not any("no login" in text for text in letters)


def test_a_forced_renewal_brings_a_new_certificate_that_verifies(vps: PracticeVps) -> None:
    serial = "openssl x509 -noout -serial -in /etc/letsencrypt/live/ferreteria.test/fullchain.pem"
    before = vps.shell(serial)
    renew = "--no-deps --entrypoint certbot certbot renew --force-renewal --no-random-sleep-on-renew"
    vps.shell(f"{COMPOSE} run --rm -T {renew}; {COMPOSE} exec -T nginx nginx -s reload")
    assert vps.shell(serial) != before
    wait_healthy(vps, 10)


def test_an_audit_is_quiet_on_reads_and_notices_each_change(vps: PracticeVps) -> None:
    audit = vps.audit()
    ssh(vps, f"{COMPOSE} ps; {COMPOSE} logs --tail=5 web; df -h; free -h; docker stats --no-stream")
    assert int(sql(vps, "SELECT count(*) FROM sale")) >= 100_000
    assert audit.changes() == []
    ssh(vps, f"{COMPOSE} restart nginx; touch /root/ferreteria/forgotten")
    changes = "\n".join(audit.changes())
    assert "container /ferreteria_nginx_prod was" in changes
    assert "docker: container start ferreteria_nginx_prod" in changes
    assert "/root/ferreteria/forgotten is new" in changes


def test_three_machines_come_up_at_once_and_differ(lab: str) -> None:
    wanted = [f"three-{number}" for number in range(3)]
    began = time.monotonic()
    try:
        with ThreadPoolExecutor() as pool:
            machines = list(pool.map(up, wanted))
        assert len({vps.host_key for vps in machines}) == len({vps.boot_id() for vps in machines}) == 3
        assert len({vps.shell("cat /etc/machine-id") for vps in machines}) == 3
        assert time.monotonic() - began < 60
    finally:
        for name in wanted:
            down(name)
    assert not set(wanted) & set(names())
    with pytest.raises(LabError, match=r"tests\.lab up --name three-0"):
        find("three-0")


def test_a_taken_name_and_a_bad_name_are_refused(vps: PracticeVps) -> None:
    with pytest.raises(LabError, match="already"):
        up(vps.name)
    with pytest.raises(LabError, match="is no name"):
        up("../x")


def test_the_record_of_a_machine_is_read_back_as_it_was(vps: PracticeVps) -> None:
    assert find(vps.name) == vps
