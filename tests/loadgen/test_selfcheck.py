import subprocess
import sys

from bench.loadgen.selfcheck import SERVER, Load, check, selfcheck


def test_the_error_is_measured_against_the_servers_own_log() -> None:
    reading = check(Load("two streams", streams=2, requests=10, ttft_ms=20, itl_ms=2, tokens=5))
    assert (reading.failed, reading.stamp_source, reading.events) == (0, "kernel", 70)
    # Loose limits: this says that the figure is an error and not a duration; the benchmark says how small it is.
    assert 0 <= reading.error_p50_ms <= reading.error_p99_ms <= reading.error_max_ms < 5
    assert abs(reading.bias_ms) <= reading.error_max_ms
    assert 0 < reading.rss_mib < 150


def test_a_check_of_a_server_that_lies_about_its_times_would_show() -> None:
    # The script says 20 ms and the log what really happened: a client that believed the script would be wrong by this.
    reading = check(Load("late server", streams=30, requests=30, ttft_ms=0, itl_ms=0, tokens=60))
    assert reading.server_late_p99_ms > reading.error_p99_ms


def test_the_quick_check_has_both_loads_and_is_quick() -> None:
    result = selfcheck(quick=True)
    assert [reading.load.streams for reading in result.readings] == [1, 64]
    assert all(reading.failed == 0 for reading in result.readings)
    assert all(reading.headroom > 0 for reading in result.readings)


def test_a_scripted_server_whose_parent_is_gone_ends_without_a_word() -> None:
    argv = [sys.executable, "-m", SERVER, "--die-with-parent=1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
