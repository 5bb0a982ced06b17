"""The least that a streaming client on an event loop can do: one read, one stamp, one append per event.

What it costs is the machine's price for an event; our client's cost is judged beside it, in the same run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

import uvloop

SO_TIMESTAMPNS = 35


async def drive(port: int, streams: int, requests: int, tokens: int) -> float:
    """CPU time per read, µs, over `requests` requests on `streams` closed streams."""
    loop = asyncio.get_running_loop()
    view = memoryview(bytearray(1 << 18))
    kept: list[tuple[int, bytes, bytes]] = []
    unsent, finished, all_over = requests, 0, loop.create_future()

    def stream() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

        def send() -> None:
            nonlocal unsent
            unsent -= 1
            usage = {"include_usage": True}
            body = {"prompt": [unsent, 1, 2, 3], "max_tokens": tokens, "stream": True, "stream_options": usage}
            payload = json.dumps(body).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
            sock.send(head.encode() + payload)

        def readable() -> None:
            nonlocal finished
            size, ancillary, _, _ = sock.recvmsg_into((view,), socket.CMSG_SPACE(16))
            data = view[:size].tobytes()
            kept.append((time.monotonic_ns(), ancillary[0][2], data))
            if not data.endswith(b"0\r\n\r\n"):
                return
            finished += 1
            if unsent > 0:
                send()
            else:
                loop.remove_reader(sock.fileno())
                sock.close()
            if finished == requests:
                all_over.set_result(None)

        loop.add_reader(sock.fileno(), readable)
        send()

    begun = time.process_time()
    for _ in range(streams):
        stream()
    await all_over
    return (time.process_time() - begun) * 1e6 / len(kept)


if __name__ == "__main__":
    print(uvloop.run(drive(*map(int, sys.argv[1:]))))
