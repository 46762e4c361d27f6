"""What is shipped for Prometheus and Grafana: it parses, loads, and reads only metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.conftest import ROOT
from tests.monitoring import (
    ALERTS,
    ALERTS_TEST,
    CONFIG,
    dashboard,
    dashboard_expressions,
    families,
    metrics_in,
    rules,
    tool,
    variables,
)

BEYOND_THE_SCHEMA = {"definition", "titleFormat", "builtIn"}
"""What Grafana itself writes into dashboards and its published schema does not have."""


def run(*command) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", ALERTS),
        ("test", "rules", ALERTS_TEST),
        ("check", "config", "--syntax-only", CONFIG),
    ],
    ids=["check", "test", "config"],
)
def test_promtool_has_nothing_to_say_against(arguments):
    done = run(tool("promtool"), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_in_a_test():
    tests = yaml.safe_load(ALERTS_TEST.read_text())["tests"]
    fired = set()
    for test in tests:
        for case in test.get("promql_expr_test", ()):
            fired |= {
                re.search(r'alertname="(\w+)"', one["labels"])[1]
                for one in case["exp_samples"]
                if "alertname" in one["labels"]
            }
    assert fired == {rule["alert"] for rule in rules()}


def test_alerts_say_how_grave_it_is_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
    page = (ROOT / "docs/metrics.md").read_text()
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in page] == []


def test_alerts_and_panels_read_only_metrics_that_exist():
    known = set(families())
    named = [(rule["alert"], rule["expr"]) for rule in rules()] + dashboard_expressions()
    assert {
        title: metrics_in(expression) - known for title, expression in named if metrics_in(expression) - known
    } == {}
    assert all(
        metrics_in(expression)
        for _, expression in named
        if not expression.startswith(("up{", "max by (alertname)"))
    )
    assert all(metrics_in(selector) <= known for selector in variables())


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert():
    """But for those of whom it is said here why not."""
    elsewhere = {
        "vtpm_attest_build_info",  # fills the variables
        "vtpm_attest_request_seconds",  # its buckets are read
        "vtpm_attest_inventory_machines",
        "vtpm_attest_inventory_failing",  # `stale` follows, and matters
        "vtpm_attest_inventory_warnings",
    }
    read = {name for rule in rules() for name in metrics_in(rule["expr"])}
    read |= {name for _, expression in dashboard_expressions() for name in metrics_in(expression)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read} | elsewhere
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in families() if name.startswith("vtpm_attest_")
    }
    assert ours - bases == set()


def test_prometheus_parses_every_expression_of_the_dashboard(tmp_path):
    found = [expression for _, expression in dashboard_expressions()] + variables()
    assert len(found) > 30
    file = tmp_path / "panels.yml"
    records = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(found)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    done = run(tool("promtool"), "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafanas_own_types_load_the_dashboard_and_lose_nothing():
    """Grafana's published types (of 10.1) are not Grafana; but what they do not know, it would ignore or refuse."""
    register_default_plugins()
    written = dashboard()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert {path for path in lost(written, read) if path.rpartition("/")[2] not in BEYOND_THE_SCHEMA} == set()


def lost(before, after, path="") -> set[str]:
    """Paths of values that are not in `after` as they were in `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {
            one
            for key, value in before.items()
            for one in (lost(value, after[key], f"{path}/{key}") if key in after else {f"{path}/{key}"})
        }
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return {
            one
            for number, pair in enumerate(zip(before, after, strict=True))
            for one in lost(*pair, f"{path}/{number}")
        }
    return set() if before == after else {path}


def test_panels_have_their_own_places_numbers_and_the_chosen_data_source():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
