"""Rules, dashboard and scrape configuration: Prometheus' own tools read them, and the alerts fire when they must."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.service import board, exposition
from bench.service.prometheus import CONFIG, DASHBOARD, DASHBOARDS, RULES, SOURCES, Places, files, write

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here: install Debian's package prometheus"
)

HEALTHY = [
    ('up{job="firsttoken", instance="m"}', "1x400"),
    ('firsttoken_canary_success{instance="m", endpoint="e"}', "1x400"),
    ('firsttoken_last_canary_timestamp_seconds{instance="m", endpoint="e"}', "0+60x400"),
    ('firsttoken_canary_interval_seconds{instance="m", endpoint="e"}', "60x400"),
    ('firsttoken_state{instance="m", endpoint="e", figure="latency"}', "0x400"),
    ('firsttoken_judged_canaries_total{instance="m", endpoint="e"}', "0+1x400"),
    ('firsttoken_good_canaries_total{instance="m", endpoint="e"}', "0+1x400"),
    ('firsttoken_changes_total{instance="m", endpoint="e"}', "0x400"),
    ('firsttoken_budget_tokens{instance="m", endpoint="e"}', "1000x400"),
    ('firsttoken_budget_used_tokens{instance="m", endpoint="e"}', "0+1x400"),
    ('firsttoken_record_faults_total{instance="m"}', "0x400"),
    ('firsttoken_board_throttled{instance="m", cause="cpu-throttle-alert"}', "0x400"),
    ('firsttoken_threshold_seconds{instance="m", endpoint="e", figure="latency", level="alarm"}', "0.2x400"),
    ('firsttoken_ttft_seconds_bucket{instance="m", endpoint="e", stream="warm", le="0.1"}', "0+1x400"),
    ('firsttoken_ttft_seconds_bucket{instance="m", endpoint="e", stream="warm", le="0.25"}', "0+1x400"),
    ('firsttoken_ttft_seconds_bucket{instance="m", endpoint="e", stream="warm", le="1"}', "0+1x400"),
    ('firsttoken_ttft_seconds_bucket{instance="m", endpoint="e", stream="warm", le="+Inf"}', "0+1x400"),
]


def series(name: str, values: str) -> dict[str, str]:
    """The healthy series with one of them replaced, or taken away by an empty text."""
    found = {key: text for key, text in HEALTHY if not key.startswith(name)}
    assert len(found) < len(HEALTHY), name
    changed = {key: values for key, _ in HEALTHY if key.startswith(name) and values}
    return found | changed


def alarmed(folder: Path, given: dict[str, str], minute: int) -> set[str]:
    """Names of the alerts that fire at a minute, as promtool works them out."""
    write(folder)
    names = re.findall(r"alert: (\w+)", files()[RULES])
    case = {
        "rule_files": [RULES],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in given.items()],
                "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for name in names],
            }
        ],
    }
    (folder / "case.yml").write_text(json.dumps(case))
    done = subprocess.run(
        ["promtool", "test", "rules", "case.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    fired = set(re.findall(r"alertname: (\w+), time", said))
    assert bool(fired) == bool(done.returncode), said
    return fired


@promtool
class TestAlerts:
    def test_a_healthy_service_alarms_nobody(self, tmp_path: Path) -> None:
        assert alarmed(tmp_path, dict(HEALTHY), 390) == set()

    def test_a_slow_one_is_told_by_its_p95_and_by_how_fast_its_allowance_burns(self, tmp_path: Path) -> None:
        given = series('firsttoken_ttft_seconds_bucket{instance="m", endpoint="e", stream="warm", le="0.1"}', "0x400")
        given = {key: "0x400" if 'le="0.25"' in key else values for key, values in given.items()}
        assert alarmed(tmp_path, given, 30) == {"FirsttokenSlow"}
        given = series("firsttoken_good_canaries_total", "0x400")
        assert alarmed(tmp_path, given, 390) == {"FirsttokenBurnsFast", "FirsttokenBurnsSlowly"}

    def test_a_limit_missed_a_tenth_of_the_time_burns_slowly_only(self, tmp_path: Path) -> None:
        assert alarmed(tmp_path, series("firsttoken_good_canaries_total", "0+0.9x400"), 390) == {
            "FirsttokenBurnsSlowly"
        }

    def test_a_service_that_is_gone_is_down_after_two_minutes(self, tmp_path: Path) -> None:
        given = series("firsttoken_canary_success", "1x9 0x390")
        assert alarmed(tmp_path, given, 11) == set()
        assert alarmed(tmp_path, given, 13) == {"FirsttokenEndpointDown"}

    def test_a_monitor_that_is_gone_is_absent(self, tmp_path: Path) -> None:
        assert alarmed(tmp_path, series("up", ""), 10) == {"FirsttokenMonitorAbsent"}
        assert alarmed(tmp_path, series("up", "0x400"), 10) == {"FirsttokenMonitorAbsent"}

    def test_a_monitor_that_hangs_is_stale(self, tmp_path: Path) -> None:
        given = series("firsttoken_last_canary_timestamp_seconds", "0x400")
        assert alarmed(tmp_path, given, 5) == set()
        assert alarmed(tmp_path, given, 8) == {"FirsttokenStale"}

    def test_a_clock_that_jumps_ahead_is_told_and_not_taken_for_health(self, tmp_path: Path) -> None:
        given = series("firsttoken_last_canary_timestamp_seconds", "86400+60x400")
        assert alarmed(tmp_path, given, 10) == {"FirsttokenClockStepped"}

    def test_states_changes_spent_budgets_and_lost_records_are_told(self, tmp_path: Path) -> None:
        for name, values, alert in [
            ("firsttoken_state", "2x400", "FirsttokenAlarm"),
            ("firsttoken_changes_total", "0x5 1x390", "FirsttokenChanged"),
            ("firsttoken_budget_used_tokens", "1000x400", "FirsttokenBudgetSpent"),
            ("firsttoken_record_faults_total", "0+1x400", "FirsttokenRecordsLost"),
        ]:
            assert alarmed(tmp_path, series(name, values), 10) == {alert}

    def test_a_board_that_slows_itself_down_for_more_than_a_moment_is_told(self, tmp_path: Path) -> None:
        """Scraped once a minute: for good, half of the time as a passive trip does it, and once."""
        throttled = "firsttoken_board_throttled"
        assert alarmed(tmp_path, series(throttled, "0x9 1x390"), 15) == {"FirsttokenBoardThrottled"}
        turns = "0 1 " * 30
        assert alarmed(tmp_path, series(throttled, turns), 20) == {"FirsttokenBoardThrottled"}
        once = "0x9 1 0x390"
        assert [alarmed(tmp_path, series(throttled, once), minute) for minute in (10, 12, 14)] == [set()] * 3

    def test_rules_and_configuration_are_what_prometheus_reads(self, tmp_path: Path) -> None:
        write(tmp_path, Places(alertmanager="127.0.0.1:9093"))
        for kind, name in (("rules", RULES), ("config", CONFIG)):
            done = subprocess.run(
                ["promtool", "check", kind, name], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr


def known() -> set[str]:
    """Names of all series that a monitor may expose."""
    names = {*exposition.GAUGES, "firsttoken_endpoint_info", "process_cpu_seconds_total", "up"}
    names |= {*board.SERIES}
    names |= {f"{name}_total" for name in exposition.COUNTERS} | {"firsttoken_record_faults_total"}
    return names | {f"{name}_{part}" for name in exposition.HISTOGRAMS for part in ("bucket", "sum", "count")}


def panels() -> list[dict[str, Any]]:
    return list(json.loads(files()[DASHBOARD])["panels"])


def test_every_query_and_rule_asks_for_series_that_there_are() -> None:
    texts = [target["expr"] for panel in panels() for target in panel["targets"]]
    texts += re.findall(r"expr: ((?:.|\n)*?)\n {8}\w", files()[RULES])
    asked = {name for text in texts for name in re.findall(r"\b(?:firsttoken|gen_ai|process)_\w+", text)}
    assert len(asked) > 20
    assert asked - known() == set()


def test_the_dashboard_names_no_machine_and_every_panel_has_a_place_of_its_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places) >= 12
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    assert json.loads(files()[DASHBOARD])["uid"] == "firsttoken-monitor"


def test_provisioning_says_where_prometheus_and_the_dashboards_are() -> None:
    made = files(Places(prometheus="http://prometheus:9090", folder="/etc/dashboards"))
    yaml = YAML(typ="safe")
    assert yaml.load(made[SOURCES])["datasources"][0]["url"] == "http://prometheus:9090"
    assert yaml.load(made[DASHBOARDS])["providers"][0]["options"]["path"] == "/etc/dashboards"


def test_rules_are_valid_yaml_with_a_summary_and_a_severity_each() -> None:
    rules = YAML(typ="safe").load(files()[RULES])["groups"][0]["rules"]
    assert len(rules) >= 10
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        page, _, place = rule["annotations"]["runbook_url"].partition("#")
        assert f'id="{place}"' in (Path(__file__).parents[2] / page).read_text()


def test_the_objective_sets_how_fast_an_allowance_burns() -> None:
    assert "> 0.1440" in files()[RULES]
    assert "> 0.0144" in files(Places(objective=0.999))[RULES]
