"""The part that asks how many requests a second there can be, when each client asks again at once.

Rounds are interleaved: each runs every subject once, so that a machine that slows down slows down all.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import orjson
import redis

from loadtests.bench.cpu import CpuUse, Stopwatch
from loadtests.bench.figures import Figure
from loadtests.bench.plan import BODY, RESERVATIONS, put_on_sale
from loadtests.bench.servers import Server, directory, redis_server
from loadtests.bench.subjects import ANSWER_SECONDS_MAX, Bench, Place, Subject
from loadtests.bench.wrk import RESERVE_PATH, Load, put_load

T = TypeVar("T")
PART = "peak"
ACCEPTED, REFUSED, TURNED_AWAY = 201, 409, 503
ANSWERS = "answers"
"""Those that the subject is to give. Who is turned away has no answer yet."""
BUSY = "turned away"
SERVER_CPU = "server CPU"
REDIS_CPU = "Redis CPU"
LOAD_CPU = "load CPU"
SERVER_BUSY = "server's core busy"
REST_BUSY = "other core busy"
"""With Redis and the load. Where this core is full and the server's is not, more load would not help."""
DISTURBED = "disturbed"
DISTURBED_MAX = 0.1
"""A run that lost more than this share of a core to others is made again."""


class Unverified(Exception):
    """A server did not do what it answered. The message says which, and what it did."""


@dataclass(frozen=True, slots=True)
class Run:
    """A subject in one round."""

    status: int
    """What the subject is to answer."""
    load: Load
    made: int
    """Reservations that came into Redis meanwhile."""
    server: CpuUse
    """The subject, on its core."""
    rest: CpuUse
    """Redis, on the core that it shares with the load."""

    @property
    def answers_per_second(self) -> float:
        return self.load.answered(self.status) / self.load.seconds

    @property
    def disturbed(self) -> float:
        """The share of a core that went to processes that are not ours."""
        return max(self.server.others, self.rest.others)

    def figures(self) -> dict[tuple[str, str], float]:
        """By name and unit."""
        asked = max(1, self.load.answers)
        return {
            (ANSWERS, "1/s"): self.answers_per_second,
            ("accepted", "requests"): self.load.answered(ACCEPTED),
            ("refused", "requests"): self.load.answered(REFUSED),
            (BUSY, "requests"): self.load.answered(TURNED_AWAY),
            ("made", "reservations"): self.made,
            (SERVER_CPU, "us/request"): self.server.process_seconds * 1e6 / asked,
            (REDIS_CPU, "us/request"): self.rest.process_seconds * 1e6 / asked,
            (LOAD_CPU, "us/request"): self.rest.load_seconds * 1e6 / asked,
            (SERVER_BUSY, "share of the core"): self.server.busy,
            (REST_BUSY, "share of the core"): self.rest.busy,
            (DISTURBED, "share of a core"): self.disturbed,
        }


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Every subject, once a round. Raises Unverified, ServerFailed, LoadFailed."""
    runs: dict[str, list[Run]] = {subject.name: [] for subject in subjects}
    for number in range(bench.options.rounds):
        for subject in in_turn(subjects, number):
            run = _undisturbed_run(bench, subject, number + 1, say)
            runs[subject.name].append(run)
    return [figure for name, found in runs.items() for figure in _figures(name, found)]


def in_turn(subjects: Sequence[T], number: int) -> list[T]:
    """The order of a round: each begins with another one, so that none always follows the same one."""
    first = number % len(subjects)
    return [*subjects[first:], *subjects[:first]]


def _figures(subject: str, runs: Sequence[Run]) -> Iterator[Figure]:
    rounds = [run.figures() for run in runs]
    for name, unit in rounds[0]:
        yield Figure(PART, subject, name, unit, tuple(found[name, unit] for found in rounds))


def _undisturbed_run(bench: Bench, subject: Subject, number: int, say: Callable[[str], None]) -> Run:
    """The first run that others leave alone, else the least disturbed of all attempts."""
    tried: list[Run] = []
    for _ in range(bench.options.attempts):
        run = _run(bench, subject)
        tried.append(run)
        note = "" if run.disturbed <= DISTURBED_MAX else f"  disturbed: {run.disturbed:.0%}"
        say(f"round {number}  {subject.name:<26}{run.answers_per_second:>9,.0f}/s{note}")
        if run.disturbed <= DISTURBED_MAX:
            break
    return min(tried, key=lambda run: run.disturbed)


def _run(bench: Bench, subject: Subject) -> Run:
    """With a Redis and a server of its own, so that none finds what another has left."""
    options, rest = bench.options, bench.cores.rest
    with subject_running(bench, subject) as (server, store), redis.Redis(port=store.port) as client:

        def made() -> int:
            return int(client.hlen(RESERVATIONS))

        def load(seconds: int) -> Load:
            return put_load(server.port, bench.users, rest, seconds=seconds, connections=options.connections)

        _look_at_one(bench, subject, server)
        if options.warm_up_seconds:
            load(options.warm_up_seconds)
        made_before = made()
        server_use = Stopwatch(bench.cores.server, server.pid, load_too=False)
        rest_use = Stopwatch(rest, store.pid, load_too=True)
        found = load(options.seconds)
        run = Run(subject.status, found, made() - made_before, server_use.read(), rest_use.read())
        verify(subject, run, options.connections)
        _look_at_one(bench, subject, server)
        return run


def verify(subject: Subject, run: Run, connections: int) -> None:
    """Whether all that was answered was done, and no more. Raises Unverified."""
    load, busy = run.load, run.load.answered(TURNED_AWAY)
    answered = load.answered(subject.status)
    if load.broken or load.late or not answered or answered + busy < load.answers:
        raise Unverified(f"{subject.name}: not every answer is {subject.status}: {load}")
    # At its end each load leaves a request under way on every connection: the warm-up's are done within
    # the time that we look at, and our own may be. Who is turned away may come back, so may be there.
    least = load.answered(ACCEPTED) if subject.reserves else 0
    most = least + busy + 2 * connections if least else 0
    if not least <= run.made <= most:
        raise Unverified(f"{subject.name}: {least} accepted, and {run.made} in Redis")


def _look_at_one(bench: Bench, subject: Subject, server: Server) -> None:
    """Look at one whole answer. Raises Unverified."""
    until = time.monotonic() + ANSWER_SECONDS_MAX
    status, body = _ask(bench, server)
    while status == TURNED_AWAY and time.monotonic() < until:  # it has not yet recovered from the load
        status, body = _ask(bench, server)
    if status != subject.status:
        raise Unverified(f"{subject.name}: answers {status} {body.decode('utf-8', 'replace')}")


def _ask(bench: Bench, server: Server) -> tuple[int, bytes]:
    with bench.users.open() as lines:
        user, token = next(lines).split()
    headers = {
        "Authorization": f"Bearer {token}",
        "X-User": user,
        "Content-Type": "application/json",
        "Idempotency-Key": secrets.token_hex(12),
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("POST", RESERVE_PATH, BODY, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def subject_running(bench: Bench, subject: Subject) -> Iterator[tuple[Server, Server]]:
    """The subject and its Redis."""
    with directory() as home, redis_server(home, bench.cores.rest, subject.fsync) as store:
        place = Place(home, store.port, home / "plan.json")
        if subject.plans:
            plan = asyncio.run(put_on_sale(f"redis://127.0.0.1:{store.port}/0", subject.stock))
            place.plan.write_bytes(orjson.dumps(plan))
        with subject.start(bench, place) as server:
            yield server, store
