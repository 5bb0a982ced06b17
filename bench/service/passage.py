"""nginx as nothing but a passage to any server: its configuration as text, and what starts it on a port of its own.

    python -m bench.service.passage --upstream http://127.0.0.1:8000 --port 8080 --folder FOLDER

A pure function gives the text. The program writes it into the folder and becomes nginx, so that whoever started it
holds nginx itself: nothing of it is left when that ends.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.errors import EnvironmentFault
from bench.service import nginx

INSTALL = "on Debian and Ubuntu: apt install nginx-light"
# Temporary files that nginx insists on having a place for.
SCRATCH = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
# An answer may take its time, and so may the pause before its first token.
PATIENCE_S = 3600

# What a stream needs: chunks, kept connections to the server, and nobody who collects.
UNBUFFERED = """\
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainNginx:
    """Where nginx listens and what stands behind it; `scratch` is a folder for its process file and temporary files.

    `buffered` leaves nginx as it comes: HTTP/1.0 to the server, a connection a request, answers collected before they
    are passed on. (What a server sends in HTTP/1.1's chunks nginx passes on at once, buffering or not.) `user` is whose
    rights its workers have where it is started by root.
    """

    upstream: str
    port: int
    scratch: Path
    host: str = "127.0.0.1"
    buffered: bool = False
    user: str | None = None


def config(front: PlainNginx) -> str:
    """The whole configuration: a request is never sent twice, nothing is logged but errors."""
    parts = urlsplit(front.upstream)
    tls = parts.scheme == "https"
    behind = f"{parts.hostname}:{parts.port or (443 if tls else 80)}"
    path = parts.path.rstrip("/").removesuffix("/v1")
    user = f"user {front.user};\n" if front.user else ""
    temporary = "\n".join(f"  {name}_temp_path {front.scratch}/{name};" for name in SCRATCH)
    named = "    proxy_ssl_server_name on;\n    proxy_ssl_name " + f"{parts.hostname};\n" if tls else ""
    return f"""\
{user}daemon off;
worker_processes 1;
pid {front.scratch}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
{temporary}
  upstream engine {{ server {behind}; keepalive 64; }}
  server {{
    listen {front.host}:{front.port};
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    proxy_set_header Host {parts.netloc.rpartition("@")[2]};
    proxy_read_timeout {PATIENCE_S}s;
    proxy_next_upstream off;
{"" if front.buffered else UNBUFFERED}{named}    location / {{ proxy_pass {parts.scheme}://engine{path or ""}/; }}
  }}
}}
"""


def found() -> str:
    """The program; EnvironmentFault says how to get it."""
    program = nginx.installed()
    if program is None:
        raise EnvironmentFault("nginx is not installed", hint=INSTALL)
    return program


def main() -> int:
    """Write the configuration and become nginx."""
    parser = argparse.ArgumentParser(description="nginx in front of a server, on a port of its own")
    parser.add_argument("--upstream", required=True, help="base URL of the server behind")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the configuration is kept")
    parser.add_argument("--buffered", action="store_true", help="nginx as it comes: collect answers")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="nginx-"))
    user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() == 0 else None
    front = PlainNginx(
        upstream=options.upstream, port=options.port, scratch=scratch, buffered=options.buffered, user=user
    )
    place = options.folder / "nginx.conf"
    place.write_text(config(front), encoding="utf-8")
    program = found()
    os.execv(program, [program, "-e", "stderr", "-p", str(scratch), "-c", str(place.absolute())])


if __name__ == "__main__":
    sys.exit(main())
