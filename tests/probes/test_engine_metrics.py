"""An engine's own metrics: pages of several engines and versions, over a real socket, with a server that misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.probes.context import Context, Watched
from bench.probes.engine_metrics import EngineMetrics, parse

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1200.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 300.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="a \\"quoted\\" name"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 4.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.5
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 0.01
vllm:request_prefill_time_seconds_sum{engine="0",model_name="m"} 0.4
vllm:request_decode_time_seconds_sum{engine="0",model_name="m"} 3.25
vllm:generation_tokens_total{engine="0",model_name="m"} 512.0
"""


def test_a_page_of_vllm() -> None:
    found = parse(VLLM)
    assert found["running"] == 4.0, "two engines behind one front-end"
    assert (found["waiting"], found["kv_usage"]) == (2.0, 0.25)
    assert (found["prefix_queries"], found["prefix_hits"]) == (1200.0, 300.0)
    assert (found["ttft_sum_s"], found["ttft_count"]) == (0.5, 4.0)
    assert (found["queue_sum_s"], found["prefill_sum_s"], found["decode_sum_s"]) == (0.01, 0.4, 3.25)
    assert "preemptions" not in found, "absent is absent"


def test_older_names_of_vllm() -> None:
    old = "vllm:gpu_cache_usage_perc 0.5\nvllm:gpu_prefix_cache_hits_total 7\n"
    assert parse(old) == {"kv_usage": 0.5, "prefix_hits": 7.0}


def test_both_names_at_once_are_not_added_up() -> None:
    both = 'vllm:gpu_cache_usage_perc{engine="0"} 0.4\nvllm:kv_cache_usage_perc{engine="0"} 0.5\n'
    assert parse(both)["kv_usage"] == 0.5


def test_a_page_of_llama_cpp() -> None:
    page = """llamacpp:prompt_tokens_total 6
llamacpp:prompt_tokens_cached_total 4
llamacpp:tokens_predicted_total 12
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
llamacpp:predicted_tokens_seconds 2.57849
"""
    assert parse(page) == {
        "prompt_tokens": 6.0,
        "prefix_hits": 4.0,
        "generation_tokens": 12.0,
        "running": 1.0,
        "waiting": 2.0,
    }


def test_a_page_of_fastdeploy() -> None:
    page = (
        "# TYPE fastdeploy:num_requests_running gauge\nfastdeploy:num_requests_running 2.0\n"
        "fastdeploy:time_to_first_token_seconds_sum 1.5\nfastdeploy:time_to_first_token_seconds_count 10.0\n"
        "fastdeploy:request_queue_time_seconds_sum 0.25\nfastdeploy:gpu_cache_usage_perc 0.125\n"
    )
    assert parse(page) == {
        "running": 2.0,
        "ttft_sum_s": 1.5,
        "ttft_count": 10.0,
        "queue_sum_s": 0.25,
        "kv_usage": 0.125,
    }


def test_other_metrics_of_the_page_are_left_alone() -> None:
    assert parse("python_gc_objects_collected_total 9\nhttp_requests_total 3\n# EOF\n") == {}


class Server(ThreadingHTTPServer):
    page: str | None = VLLM
    status = 200
    delay_s = 0.0


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(running.delay_s)
            body = (running.page or "").encode()
            self.send_response(running.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    running = Server(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def probe(server: Server) -> EngineMetrics:
    return EngineMetrics(Context(watched=Watched(metrics_url=f"http://127.0.0.1:{server.server_port}/metrics")))


def test_it_reads_a_server_again_and_again_over_one_connection(server: Server) -> None:
    metrics = probe(server)
    assert metrics.read()["running"].value == 4.0
    server.page = VLLM.replace("} 3.0", "} 5.0")
    assert metrics.read()["running"].value == 6.0
    assert metrics.read()["preemptions"].reason == "unsupported"
    metrics.close()


def test_nothing_is_said_before_there_is_an_address() -> None:
    assert EngineMetrics(Context()).read() == {}


def test_an_engine_without_metrics_is_unsupported_and_one_that_is_gone_is_not_found(server: Server) -> None:
    metrics = probe(server)
    server.status = 404
    assert metrics.read()["running"].reason == "unsupported"
    server.status, server.page = 200, "vllm:num_requests_running{ 3"
    assert metrics.read()["running"].reason == "parse_failed"
    metrics.close()
    gone = EngineMetrics(Context(watched=Watched(metrics_url="http://127.0.0.1:9/metrics")))
    assert gone.read()["running"].reason == "not_found"


def test_a_server_that_does_not_answer_is_given_up(server: Server) -> None:
    metrics = probe(server)
    metrics.timeout_s = 0.2
    server.delay_s = 1.0
    start = time.monotonic()
    assert metrics.read()["running"].reason == "not_found"
    assert time.monotonic() - start < 0.9
    server.delay_s = 0.0
    assert metrics.read()["running"].value == 4.0, "and asked again the next time"
    metrics.close()
