"""A client of event streams that knows nothing but the wire format."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp

from tests.stack import Client, token


class Sent(NamedTuple):
    name: str
    id: str | None
    data: Any


@dataclass
class Reader:
    """What has come so far, and what comes next."""

    answer: aiohttp.ClientResponse
    retry_ms: int | None = None
    comments: int = 0
    events: list[Sent] = field(default_factory=list)

    async def next(self, seconds_max: float = 20) -> Sent | None:
        """The next event; None when the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(seconds_max):
            while line := await self.answer.content.readline():
                text = line.decode().rstrip("\n")
                if text == "":
                    if "data" in fields:
                        found = Sent(fields["event"], fields.get("id"), json.loads(fields["data"]))
                        self.events.append(found)
                        return found
                    fields = {}
                elif text.startswith(":"):
                    self.comments += 1
                else:
                    name, _, value = text.partition(": ")
                    if name == "retry":
                        self.retry_ms = int(value)
                    fields[name] = value
        return None

    async def until(self, **wanted: Any) -> Sent:
        """The next event whose data has these members."""
        while True:
            found = await self.next()
            assert found is not None, f"the stream ended; it said {self.events}"
            if wanted.items() <= found.data.items():
                return found


@asynccontextmanager
async def watching(
    client: Client, path: str, *, user: str | None = None, last: str | None = None
) -> AsyncIterator[Reader]:
    """A stream that is open, on a connection of its own."""
    headers: Mapping[str, str] = {
        **({"Authorization": f"Bearer {token(user)}"} if user else {}),
        **({"Last-Event-ID": last} if last is not None else {}),
    }
    timeout = aiohttp.ClientTimeout(total=None)
    async with client.session.get(client.url + path, headers=headers, timeout=timeout) as answer:
        assert answer.status == 200, (answer.status, await answer.read())
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield Reader(answer)
