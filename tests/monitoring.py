"""Reads what is shipped for Prometheus and Grafana: expressions, and which metrics they name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

ALERTS = ROOT / "docker/prometheus/alerts.yml"
ALERTS_TEST = ROOT / "docker/prometheus/alerts_test.yml"
CONFIG = ROOT / "docker/prometheus/prometheus.yml"
DASHBOARD = ROOT / "docker/grafana/dashboards/vtpm-attest.json"
_OWN_TO_PROMETHEUS = {"up", "ALERTS"}
_METRIC = re.compile(r"\b(up|ALERTS|vtpm_attest_\w+|process_\w+)\b")


def tool(name: str) -> str:
    """Path of a program of the Debian package `prometheus`."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: scripts/install-system-packages.sh test")
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def dashboard_expressions() -> list[tuple[str, str]]:
    """Panel and PromQL, variables filled in as Grafana does."""
    found = [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
    found += [("annotation", one["expr"]) for one in dashboard()["annotations"]["list"] if "expr" in one]
    return [(title, _filled(expression)) for title, expression in found]


def variables() -> list[str]:
    """Selectors whose labels fill the dashboard's variables."""
    definitions = [one["definition"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    return [_filled(re.fullmatch(r"label_values\((.*), \w+\)", text)[1]) for text in definitions]


def metrics_in(expression: str) -> set[str]:
    """Metrics an expression reads, without those Prometheus makes itself."""
    return set(_METRIC.findall(re.sub(r'"[^"]*"', "", expression))) - _OWN_TO_PROMETHEUS


def families(documentation: Path = ROOT / "docs/metrics.md") -> Iterator[str]:
    """Series names of every documented metric: a test holds the documentation against what is exported."""
    for name, kind in re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram|summary) \|", documentation.read_text(), re.MULTILINE
    ):
        yield from {
            "histogram": (f"{name}_bucket", f"{name}_sum", f"{name}_count"),
            "summary": (f"{name}_sum", f"{name}_count"),
        }.get(kind, (name,))


def _filled(expression: str) -> str:
    filled = expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
    assert "$" not in filled, f"unknown variable in {expression}"
    return filled
