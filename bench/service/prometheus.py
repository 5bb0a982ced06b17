"""What Prometheus and Grafana need to watch a monitor: scrape configuration, rules, dashboard, provisioning."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

PORT = 9469
RULES = "firsttoken.rules.yml"
CONFIG = "prometheus.yml"
DASHBOARD = "grafana/dashboards/firsttoken.json"
DASHBOARDS = "grafana/provisioning/dashboards/firsttoken.yml"
SOURCES = "grafana/provisioning/datasources/firsttoken.yml"
_TEMPLATES = {
    RULES: "prometheus/rules.yml.j2",
    CONFIG: "prometheus/prometheus.yml.j2",
    DASHBOARD: "grafana/dashboard.json.j2",
    DASHBOARDS: "grafana/dashboards.yml.j2",
    SOURCES: "grafana/datasource.yml.j2",
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are, as seen by whoever reads the files; `objective` is the share of canaries within the limit.

    `monitor` is host:port of `bench monitor`, `prometheus` the address that Grafana asks, `folder` where Grafana finds
    the dashboard, `alertmanager` host:port or None. `runbook` is where docs/monitor.md stands for whoever is called:
    the site is yours to publish (`nox -s docs`).
    """

    monitor: str = f"127.0.0.1:{PORT}"
    prometheus: str = "http://127.0.0.1:9090"
    folder: str = "/etc/grafana/dashboards"
    alertmanager: str | None = None
    scrape_s: int = 15
    objective: float = 0.99
    runbook: str = "docs/monitor.md"


def files(places: Places | None = None) -> dict[str, str]:
    """Text of every file by its relative path: CONFIG, RULES, DASHBOARD and Grafana's provisioning."""
    environment = Environment(
        loader=PackageLoader("bench.service"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return {
        path: environment.get_template(template).render(at=places or Places(), rules=RULES)
        for path, template in _TEMPLATES.items()
    }


def write(folder: Path, places: Places | None = None) -> list[Path]:
    """Write all of them below a folder; the paths."""
    written = []
    for name, text in files(places).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
