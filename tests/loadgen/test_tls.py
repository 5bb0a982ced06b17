import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.loadgen.target import Target
from bench.scenario.model import Arrivals
from tests.loadgen.driving import Seen, ask, drive_at
from tests.loadgen.responses import TEXT, WHOLE, chunked

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem"


async def serve(certificate: Path) -> tuple[asyncio.Server, int]:
    """A TLS server that sends its answer in two halves, a moment apart."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response = chunked(WHOLE)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.split("Content-Length: ")[1].split("\r\n")[0]))
                writer.write(response[:200])
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(response[200:])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = await asyncio.start_server(handle, "localhost", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def over_tls(certificate: Path, turns: list[Any]) -> Seen:
    server, port = await serve(certificate)
    seen = await drive_at(Target("localhost", port, tls=True), turns)
    server.close()
    await asyncio.sleep(0.05)
    return seen


async def test_behind_tls_the_stamps_are_the_users_and_say_so(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for row in (await over_tls(certificate, ask(3))).rows:
        assert (row["error"], row["text"]) == (None, TEXT)
        assert (row["stamp_source"], row["client_lag_us"], row["connect_ns"]) == ("user", None, None)
        assert row["sent_ns"] <= row["sent_end_ns"] <= row["headers_ns"] < row["first_token_ns"] <= row["end_ns"]
        assert row["first_token_ns"] - row["headers_ns"] > 15_000_000


async def test_a_large_request_goes_through_tls_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (row,) = (await over_tls(certificate, ask(1, {"prompt": "x" * (4 << 20)}))).rows
    assert row["error"] is None
    assert row["sent_end_ns"] > row["sent_ns"]


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    (row,) = (await over_tls(certificate, ask(1))).rows
    assert row["error_kind"] == "connect"
    assert "certificate" in row["error"].lower()


async def test_the_load_generators_own_process_speaks_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server, port = await serve(certificate)
    request = Request(0, "p", "measured", "/v1/chat/completions", {"stream": True})
    job = Job("localhost", port, (request, request), Arrivals(closed=1), tls=True, timeout_s=5.0)
    with LoadGenerator() as generator:
        driven = await asyncio.to_thread(generator.drive, job)
    server.close()
    await asyncio.sleep(0.05)
    assert [(row["error"], row["stamp_source"]) for row in driven.requests] == [(None, "user")] * 2
    assert set(driven.chunks["kernel_ns"]) == {None}
