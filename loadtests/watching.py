"""Watching events: a stream on a connection of its own, read for a while, and closed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import gevent
from geventhttpclient.client import HTTPClient
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS

from loadtests.answers import Answer, Unexpected


@dataclass
class Watched:
    """What a stream sent."""

    answer: Answer
    events: Counter[str] = field(default_factory=Counter)
    """How many, by name."""
    first_ms: float = 0.0
    """From asking to the first event; to the answer, where there was none."""
    bytes: int = 0


def watch(host: str, path: str, token: str, seconds: float, answer_seconds_max: float) -> Watched:
    """Read a stream of events for so long. Raises Unexpected when it ends before, or says nothing."""
    client = HTTPClient.from_url(
        host, connection_timeout=answer_seconds_max, network_timeout=answer_seconds_max
    )
    headers = {"Accept": "text/event-stream", "Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    started = time.perf_counter()
    try:
        response = client.request("GET", path, headers=headers)
        try:
            told = {name.lower(): value for name, value in response.items()}
            watched = Watched(Answer(response.status_code, told, b""))
            watched.first_ms = (time.perf_counter() - started) * 1000
            if response.status_code != 200:
                watched.answer = Answer(response.status_code, told, response.read())
                return watched
            if (told.get("content-type") or "").partition(";")[0] != "text/event-stream":
                raise Unexpected("200: not a stream of events")
            with gevent.Timeout(seconds, False):
                while line := response.readline(b"\n"):
                    watched.bytes += len(line)
                    if line.startswith(b"event: "):
                        if not watched.events:
                            watched.first_ms = (time.perf_counter() - started) * 1000
                        watched.events[line[7:].strip().decode()] += 1
        finally:
            response.release()
    except FAILURE_EXCEPTIONS as error:
        raise Unexpected(f"the stream broke off: {type(error).__name__}") from None
    finally:
        client.close()
    if not watched.events:
        raise Unexpected("200: a stream without its first event")
    return watched
