"""Stories: pages of documentation whose requests are sent and whose answers are compared.

A block ```http holds who asks (`service`, `user NAME` or nobody), a request, `HTTP <status>` and the
part of the answer that the page shows. "{name}" in an answer is remembered the first time and
compared from then on. "It is **2026-11-04 12:00:01** UTC" sets the story's clock: all its times are
sent as far from now as they are from that clock, and the campaigns are put anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from tests.stack import Answer, Client, eventually

_PART = re.compile(r"^```http\n(.*?)^```$|It is \*\*([\d\- :]+)\*\* UTC", re.MULTILINE | re.DOTALL)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_NAME = re.compile(r"\{(\w+)\}")


class Exchange(NamedTuple):
    """A request and the answer that the page shows."""

    who: str
    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int
    answer: Any


class Clock(NamedTuple):
    """The story goes on at another time."""

    at: datetime


def read(page: Path) -> list[Exchange | Clock]:
    parts: list[Exchange | Clock] = []
    for match in _PART.finditer(page.read_text("utf-8")):
        if match[2]:
            parts.append(Clock(datetime.fromisoformat(match[2]).replace(tzinfo=UTC)))
        else:
            parts.append(_exchange(match[1]))
    return parts


def _exchange(block: str) -> Exchange:
    asked, _, answered = re.split(r"^HTTP ", block, maxsplit=1, flags=re.MULTILINE)[0], "", ""
    answered = re.split(r"^HTTP ", block, maxsplit=1, flags=re.MULTILINE)[1]
    head, _, body = asked.strip().partition("\n\n")
    lines = head.splitlines()
    who = lines.pop(0) if lines[0] == "service" or lines[0].startswith("user ") else ""
    method, path = lines.pop(0).split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    status, _, answer = answered.partition("\n")
    return Exchange(who, method, path, headers, body.strip(), int(status), json.loads(answer))


@dataclass
class Story:
    """One page, being told to a running stack."""

    client: Client
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    names: dict[str, str] = field(default_factory=dict)
    campaigns: dict[str, str] = field(default_factory=dict)
    """By path: the document as the page has it."""

    async def tell(self, part: Exchange | Clock) -> None:
        if isinstance(part, Clock):
            self.now = part.at
            for path, document in self.campaigns.items():
                answer = await self._send("PUT", path, "service", {}, document)
                assert answer.status == 200, answer
            return
        if part.method == "PUT":
            self.campaigns[part.path] = part.body
        given = (part.method, part.path, part.who, part.headers, part.body)
        if part.method != "GET":
            self._compare(await self._send(*given), part)
            return

        def told(answer: Answer) -> bool:
            try:
                self._compare(answer, part)
            except AssertionError:
                return False
            return True

        try:
            await eventually(lambda: self._send(*given), told, 10)
        except TimeoutError:
            self._compare(await self._send(*given), part)

    async def _send(self, method: str, path: str, who: str, headers: dict[str, str], body: str) -> Answer:
        shift = datetime.now(UTC) - self.now
        sent = _INSTANT.sub(lambda match: _shifted(match[0], shift), self._filled(body))
        return await self.client.call(
            method,
            self._filled(path),
            user=who.removeprefix("user ") if who.startswith("user ") else None,
            service=who == "service",
            data=sent.encode() if sent else None,
            headers=headers,
        )

    def _filled(self, text: str) -> str:
        return _NAME.sub(lambda match: self.names.get(match[1], match[0]), text)

    def _compare(self, answer: Answer, part: Exchange) -> None:
        assert answer.status == part.status, (part.method, part.path, answer)
        self._same(answer.body, part.answer, f"{part.method} {part.path}")

    def _same(self, found: Any, shown: Any, where: str) -> None:
        if isinstance(shown, dict):
            assert isinstance(found, dict), (where, found)
            for name, value in shown.items():
                assert name in found, (where, name, found)
                self._same(found[name], value, f"{where} {name}")
        elif isinstance(shown, list):
            assert isinstance(found, list), (where, found)
            assert len(found) == len(shown), (where, found)
            for one, value in zip(found, shown, strict=True):
                self._same(one, value, where)
        elif isinstance(shown, str) and (match := _NAME.fullmatch(shown)):
            assert self.names.setdefault(match[1], found) == found, where
        elif isinstance(shown, str) and _INSTANT.fullmatch(shown):
            # The clock moves between two requests of one page: a minute is near enough.
            there = datetime.fromisoformat(found) - (datetime.now(UTC) - self.now)
            assert abs(there - datetime.fromisoformat(shown)) < timedelta(minutes=1), (where, found)
        else:
            assert found == shown, (where, found)


def _shifted(instant: str, shift: timedelta) -> str:
    return (datetime.fromisoformat(instant) + shift).isoformat()
