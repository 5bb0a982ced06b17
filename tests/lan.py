"""The cable between the hosts of `tests.hosts`: carries IP packets between tun devices, and does it badly on order.

    python lan.py NET NAME…      e.g. 10.7.9 ft0 ft1; the device numbered n has the address NET.(n + 1)

It makes the devices (they are gone with it), says `ready`, and then takes orders, one JSON object a line, and answers
each by a line: `{"host": 1, "delay_ms": 20, "loss": 0.1, "mbit": 10, "cut": true}`. What is named changes, the rest
stays; `"name"` makes the host's device anew. Delay and rate hold for what goes to the host and for what comes from it,
each way. The kernel's `netem` does the same, and not every kernel has it; tun they have.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass
from typing import IO

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MOST = 1 << 16
# What a slow link keeps waiting before it drops, as a router does.
_QUEUE_S = 0.3
# A timer is late by about a tenth of this; what remains is waited for with open eyes.
_SPIN_S = 0.0003


@dataclass
class Link:
    """One host's cable."""

    device: int
    delay_ms: float = 0.0
    loss: float = 0.0
    mbit: float | None = None
    cut: bool = False
    # when the last packet that goes this way, and the other, has been put through, s
    out_free: float = 0.0
    in_free: float = 0.0

    def through(self, now: float, size: int, *, out: bool) -> float | None:
        """When a packet that enters now is through; None if it is lost."""
        if self.cut or (self.loss and random.random() < self.loss):
            return None
        free = self.out_free if out else self.in_free
        end = max(now, free) + (size * 8 / (self.mbit * 1e6) if self.mbit else 0.0)
        if end - now > _QUEUE_S:
            return None
        if out:
            self.out_free = end
        else:
            self.in_free = end
        return end + self.delay_ms / 1000


def opened(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def main() -> None:
    net, *names = sys.argv[1:]
    prefix = bytes(int(part) for part in net.split("."))
    links = [Link(opened(name)) for name in names]
    # Ahead of the load generator, whose packets it carries.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    # Unbuffered: what select sees is then all that there is.
    orders = os.fdopen(0, "rb", buffering=0)
    print("ready", flush=True)
    under_way: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic() - _SPIN_S) if under_way else None
        readable, _, _ = select.select([0, *(link.device for link in links)], [], [], wait)
        for device in readable:
            if device == 0:
                if not ordered(links, orders):
                    return
                break
            source = next(link for link in links if link.device == device)
            with contextlib.suppress(OSError):
                packet = os.read(device, _MOST)
                place = packet[19] - 1
                # IPv4 within our net; anything else a host says (IPv6 router questions) is nobody's.
                if packet[0] >> 4 != 4 or packet[16:19] != prefix or not 0 <= place < len(links):
                    continue
                left = source.through(time.monotonic(), len(packet), out=True)
                due = None if left is None else links[place].through(left, len(packet), out=False)
                if due is not None:
                    number += 1
                    heapq.heappush(under_way, (due, number, links[place].device, packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, device, packet = heapq.heappop(under_way)
            # A device that went with its host takes nothing any more.
            with contextlib.suppress(OSError):
                os.write(device, packet)


def ordered(links: list[Link], orders: IO[bytes]) -> bool:
    """Carry out an order; False when nobody gives any more."""
    line = orders.readline()
    if not line:
        return False
    order = json.loads(line)
    link = links[order.pop("host")]
    if "name" in order:
        # A device goes with the host that it was moved to; where it is still there, another is made all the same.
        os.close(link.device)
        order["device"] = opened(order.pop("name"))
    for name, value in order.items():
        setattr(link, name, value)
    print("done", flush=True)
    return True


if __name__ == "__main__":
    main()
