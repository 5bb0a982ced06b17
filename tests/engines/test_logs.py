"""Messages survive colours, torn lines, and two processes writing at once."""

from __future__ import annotations

from bench.engines.logs import compilation, messages
from bench.record.engine_log import LogLine
from tests.engines.vllm_logs import lines


def said(*texts: str, stream: str = "stdout") -> list[tuple[str | None, str]]:
    log = [LogLine(number, stream, text) for number, text in enumerate(texts)]
    return [(message.process, message.text) for message in messages(log)]


def test_a_header_is_taken_off_and_its_process_kept() -> None:
    assert said("(EngineCore pid=79) INFO 11-22 05:21:52 [core.py:133] ready") == [("EngineCore 79", "ready")]


def test_versions_before_the_process_prefix_are_read_too() -> None:
    assert said("INFO 04-03 08:51:12 [core.py:58] ready") == [(None, "ready")]
    assert said("INFO 01-23 07:32:01 model_runner.py:1060] ready") == [(None, "ready")]


def test_colours_go() -> None:
    coloured = "\x1b[1;36m(EngineCore pid=79)\x1b[0;0m INFO 11-22 05:21:52 [core.py:133] \x1b[32mready\x1b[0m"
    assert said(coloured) == [("EngineCore 79", "ready")]


def test_a_message_in_pieces_is_one_message() -> None:
    pieces = ("INFO 11-22 05:21:52 [core.py:1] Loading weights to", "ok 3.25 seconds")
    assert said(*pieces) == [(None, "Loading weights took 3.25 seconds")]


def test_pieces_of_two_streams_are_not_mixed() -> None:
    log = [
        LogLine(1, "stdout", "INFO 11-22 05:21:52 [core.py:1] one, "),
        LogLine(2, "stderr", "INFO 11-22 05:21:52 [core.py:1] two, "),
        LogLine(3, "stdout", "first"),
        LogLine(4, "stderr", "second"),
    ]
    assert sorted(message.text for message in messages(log)) == ["one, first", "two, second"]


def test_messages_of_two_processes_on_one_line_are_cut_apart() -> None:
    glued = (
        "(Worker pid=1) INFO 11-22 05:21:52 [a.py:1] Loading weights took 3.00 seconds"
        "(EngineCore pid=2) INFO 11-22 05:21:52 [b.py:2] waiting"
    )
    assert said(glued) == [("Worker 1", "Loading weights took 3.00 seconds"), ("EngineCore 2", "waiting")]


def test_a_progress_bars_rewrites_do_not_swallow_the_next_message() -> None:
    bar = "Loading:   0%\rLoading:  50%\rLoading: 100%"
    assert (None, "done") in said(bar, "INFO 11-22 05:21:52 [a.py:1] done")


def test_web_server_lines_without_a_process_stand_alone() -> None:
    found = said("(APIServer pid=1) INFO 11-22 05:21:52 [a.py:1] Route: /v1", "INFO:     Application startup complete.")
    assert found[-1] == (None, "Application startup complete.")


def test_a_log_of_rubbish_has_no_messages_that_matter() -> None:
    assert compilation([LogLine(0, "stdout", "\x00\xff\ufffd" * 100)]).misses == []


def test_a_recompilation_is_told_with_the_engines_own_reason_and_without_its_path() -> None:
    seen = compilation(lines("0.32.0-compiled-reload-failed"))
    assert not seen.hits
    assert seen.misses[0] == (
        "Compiling model again due to a load failure, reason: 'function' object has no attribute 'finalize_loading'"
    )


def test_cache_hits_of_old_and_new_versions_are_found() -> None:
    for version in ("0.9.2", "0.11.2", "0.33.0"):
        seen = compilation(lines(version))
        assert len(seen.hits) == 1, version
        assert not seen.misses, version


def test_compiling_is_found_in_every_versions_words() -> None:
    for version in ("0.8.5", "0.10.2", "0.13.0", "0.17.0", "0.21.0", "0.32.0-compiled"):
        seen = compilation(lines(version))
        assert len(seen.misses) == 1, version
        assert not seen.hits, version


def test_a_workers_counters_count_as_evidence() -> None:
    event = {"name": "compile_cache", "t_ns": 1, "cache_hits": 3, "cache_misses": 0}
    seen = compilation([], [event])
    assert len(seen.hits) == 1
    assert not seen.misses
