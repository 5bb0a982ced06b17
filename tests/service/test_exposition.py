"""What Prometheus reads of a monitor: families once, values not known taken away, labels that cannot break out."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.service.exposition import BOUNDS, COUNTERS, GAUGES, HISTOGRAMS, LONGEST_LABEL, Exposed, Exposition


def filled(endpoint: str, model: str = "m") -> Exposed:
    """An endpoint with every series that there is."""
    exposed = Exposed(endpoint)
    exposed.info(model, "http://127.0.0.1:8000")
    for name, (_, labels) in GAUGES.items():
        exposed.gauge(name, 1.5, *labels)
    for name, (_, labels) in COUNTERS.items():
        exposed.count(name, *labels)
    for name in HISTOGRAMS:
        exposed.observe(name, "warm", 0.05)
    return exposed


def shown(*endpoints: Exposed) -> str:
    exposition = Exposition()
    for one in endpoints:
        exposition.render(one)
    return exposition.text()


def test_each_family_stands_once_with_the_samples_of_all_endpoints() -> None:
    text = shown(filled("a"), filled("b"))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE firsttoken_latency_seconds gauge") == 1
    assert {sample.labels["endpoint"] for sample in families["firsttoken_latency_seconds"].samples} == {"a", "b"}
    assert {*GAUGES, *COUNTERS, *HISTOGRAMS} <= set(families)


def test_a_value_that_is_not_known_any_more_is_taken_away_and_not_zero() -> None:
    exposed = Exposed("e")
    exposed.gauge("firsttoken_memory_bytes", 5.0)
    assert "firsttoken_memory_bytes{" in shown(exposed)
    exposed.gauge("firsttoken_memory_bytes", None)
    exposed.gauge("firsttoken_memory_bytes", None)
    assert "firsttoken_memory_bytes{" not in shown(exposed)


def test_hostile_model_names_stay_inside_their_label_and_are_cut() -> None:
    hostile = 'x"} 1\nfirsttoken_state{endpoint="e"} 9\n<script>\\' + "y" * 1000
    families = {family.name: family for family in text_string_to_metric_families(shown(filled("e", hostile)))}
    (sample,) = families["firsttoken_endpoint_info"].samples
    assert sample.labels["model"] == hostile[:LONGEST_LABEL]
    assert [sample.value for sample in families["firsttoken_state"].samples] == [1.5]


def test_a_server_that_changes_its_models_name_all_the_time_has_one_series() -> None:
    exposed = Exposed("e")
    for number in range(50):
        exposed.info(f"model-{number}", "http://h")
    assert shown(exposed).count("firsttoken_endpoint_info{") == 1


def test_bounds_are_finer_than_ten_milliseconds_at_the_bottom() -> None:
    assert sum(bound < 0.01 for bound in BOUNDS) >= 3
    assert list(BOUNDS) == sorted(set(BOUNDS))


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here: install Debian's package prometheus"
)
def test_names_and_units_are_as_prometheus_wants_them() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=shown(filled("e")), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
