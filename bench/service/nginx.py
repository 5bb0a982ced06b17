"""nginx before a service: one door for several instances, streams unbuffered, callers limited, nothing asked twice."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass

from bench.errors import UsageError
from bench.service.filling import filled

# Debian's name for the image; by digest where the caller gives one.
IMAGE = "docker.io/library/nginx:1.28"
# Where Debian puts what users don't call.
PLACES = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin"))
# The longest prompt, kept in memory and never written to a disk.
BODY_MIB = 16


@dataclass(frozen=True, slots=True)
class Nginx:
    """How many instances, how many requests a second a caller may send (None: as many as he likes), whose nginx."""

    instances: int = 1
    per_s: float | None = None
    image: str = IMAGE


def configuration(front: Nginx, host: str, port: int, read_timeout_s: float) -> str:
    """nginx.conf for instances on the ports after `port`."""
    about = {
        "host": host,
        "port": port,
        "ports": range(port + 1, port + 1 + front.instances),
        # nginx counts whole requests a second, or a minute.
        "rate": None if front.per_s is None else _rate(front.per_s),
        # What may come at once: a second's worth.
        "burst": 0 if front.per_s is None else max(1, math.ceil(front.per_s)),
        "keepalive": 16 * front.instances,
        "body_mib": BODY_MIB,
        "read_timeout_s": math.ceil(read_timeout_s),
    }
    return filled("nginx.conf.j2", about)


def installed() -> str | None:
    """The nginx of this machine, also where users without rights do not look; None if there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path=PLACES)


def program() -> str:
    """The same; UsageError if there is none."""
    found = installed()
    if found is None:
        raise UsageError("nginx is not installed on this machine", hint="apt-get install nginx, or leave --nginx out")
    return found


def _rate(per_s: float) -> str:
    if per_s >= 1 and per_s == int(per_s):
        return f"{int(per_s)}r/s"
    if per_s * 60 < 1:
        raise UsageError(f"nginx counts whole requests a minute, and {per_s:g} a second are fewer than one")
    return f"{round(per_s * 60)}r/m"
