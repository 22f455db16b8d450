"""Every playbook and job is a deployment whose form offers the registered sites; jobs run at the site's hours."""

import pytest
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment

from blocks import site_file
from blocks.errors import ConfigError
from deployments import catalog, limits
from tasks.steps import acting_limit
from tests import stored

pytestmark = pytest.mark.usefixtures("prefect_server")


def deployed(name: str, sites: list[str]) -> RunnerDeployment:
    return next(each for each in catalog.deployments(sites) if each.flow_name == name)


def form(sites: list[str]) -> dict[str, dict[str, object]]:
    properties: dict[str, dict[str, object]] = deployed("site-down", sites)._parameter_openapi_schema.properties
    return properties


def test_the_form_offers_the_registered_sites_and_no_others() -> None:
    assert form(["a", "b"])["site"]["enum"] == ["a", "b"]
    assert "enum" not in form([])["site"]
    assert form(["a", "b"])["mode"]["enum"] == ["respond", "plan"]


@pytest.mark.parametrize(("sites", "chosen"), [(["a"], {"site": "a"}), (["a", "b"], {}), ([], {})])
def test_the_only_site_is_chosen_already(sites: list[str], chosen: dict[str, str]) -> None:
    assert all(deployment.parameters == chosen for deployment in catalog.deployments(sites))


def test_a_deployment_is_named_and_explained_after_its_playbook() -> None:
    deployment = deployed("site-down", [])
    assert (deployment.full_name, deployment.tags) == ("site-down/guardia", ["guardia"])
    assert str(deployment.description).startswith("Complete Site Down (P1): ")
    assert deployment.entrypoint == "flows.site_down.site_down"


def test_jobs_run_at_the_hours_of_the_site_in_its_time_zone_if_it_has_a_bucket() -> None:
    site = stored.site(backup_at="02:05").model_copy(
        update={"name": "nightly", "timezone": "America/Argentina/Tucuman"}
    )
    site_file.register(site)
    (schedule,) = deployed("daily-backup", ["nightly", "nowhere"]).schedules or []
    assert schedule.schedule is not None
    assert schedule.schedule.model_dump(include={"cron", "timezone"}) == {
        "cron": "5 2 * * *", "timezone": "America/Argentina/Tucuman",
    }  # fmt: skip
    assert schedule.parameters == {"site": "nightly"}
    (later,) = deployed("verify-backup", ["nightly"]).schedules or []
    assert later.schedule is not None and later.schedule.model_dump()["cron"] == "0 4 * * *"
    assert not deployed("site-down", ["nightly"]).schedules


def test_a_site_that_cannot_be_loaded_gets_no_schedule_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert not deployed("daily-backup", ["nowhere"]).schedules
    assert "daily-backup is never started for nowhere: There is no site 'nowhere'" in caplog.text


def test_the_form_of_data_corruption_asks_for_what_may_be_said_at_the_start() -> None:
    properties = deployed("data-corruption", ["a"])._parameter_openapi_schema.properties
    assert list(properties) == [
        "site", "mode", "reason", "backup", "how", "only",
    ]  # fmt: skip


def test_an_unknown_playbook_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"There is no playbook 'site-up'\. Known: site-down, "):
        catalog.known("site-up")


def test_a_registered_playbook_is_started_with_its_site_and_reason() -> None:
    catalog.register(["a", "b"])
    run_id = catalog.start("site-down", "a", reason="an alert")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)  # type: ignore[arg-type]
        assert {**run.parameters, "mode": None} == {"site": "a", "reason": "an alert", "mode": None}
        with pytest.raises(Exception, match=r"enum|not one of"):
            catalog.start("site-down", "c", reason="no such site")
        client.delete_flow_run(run.id)


def test_a_limit_is_made_once_and_kept() -> None:
    limits.ensure(["limited"])
    with get_client(sync_client=True) as client:
        first = client.read_global_concurrency_limit_by_name(acting_limit("limited"))
        limits.ensure(["limited"])
        assert client.read_global_concurrency_limit_by_name(acting_limit("limited")).id == first.id
    assert first.limit == 1
