"""Who is told when a state changes: a command, a webhook. One that hangs or is down delays nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPException
from typing import Any

from bench.service.errand import errand
from bench.service.watchlist import Alarms

# So many changes wait at most; of more, the oldest are dropped and counted.
MOST_WAITING = 100
PATIENCE_S = 10.0
TRIES, PAUSE_S = 3, 2.0


class _Stays(urllib.request.HTTPRedirectHandler):
    """A webhook that points elsewhere is not followed: what is told goes where it was meant to."""

    def redirect_request(self, *_: Any) -> None:
        """None: do not follow."""


class Teller:
    """Tells of changes, one after the other, beside all else."""

    def __init__(self, alarms: Alarms, told: Callable[[str], None], secrets: Collection[str]) -> None:
        self._alarms = alarms
        self._said = told
        # Keys of endpoints are no business of the command.
        hidden = {*secrets, *([alarms.webhook_env] if alarms.webhook_env else [])}
        self._environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self._webhook = os.environ.get(alarms.webhook_env, "").strip() if alarms.webhook_env else ""
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(MOST_WAITING)
        self.lost = 0

    def tell(self, change: Mapping[str, Any]) -> None:
        """Have a change told; returns at once."""
        if self._waiting.full():
            self._waiting.get_nowait()
            self.lost += 1
        self._waiting.put_nowait(change)

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            change = await self._waiting.get()
            data = json.dumps(change, ensure_ascii=False).encode()
            if self._alarms.command:
                await self._command(self._alarms.command, data)
            if self._webhook:
                await self._post(data)

    async def _command(self, command: list[str], data: bytes) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                code, _ = await errand(command, data, self._environment)
            if code:
                self._fault(f"the alarm's command ended with {code}")
        except TimeoutError:
            self._fault(f"the alarm's command did not end within {PATIENCE_S:g} s and was killed")
        except OSError as error:
            self._fault(f"the alarm's command could not be started: {error.strerror}")

    async def _post(self, data: bytes) -> None:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            why = await asyncio.to_thread(self._posted, data)
            if why is None:
                return
        self._fault(f"the webhook could not be told in {TRIES} tries: {why}")

    def _posted(self, data: bytes) -> str | None:
        """Post; why it failed, without the address, which may itself be a secret."""
        try:
            request = urllib.request.Request(self._webhook, data, {"Content-Type": "application/json"})
            with urllib.request.build_opener(_Stays).open(request, timeout=PATIENCE_S / 2):
                return None
        except urllib.error.HTTPError as error:
            return f"it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            return type(getattr(error, "reason", error)).__name__

    def _fault(self, sentence: str) -> None:
        self.lost += 1
        self._said(sentence)
