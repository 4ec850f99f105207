"""Plays the opening, each step with a copy of the campaign; judges it; closes and audits the copies."""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp

from loadtests.audit import audit_lines
from loadtests.openloop.generator import run as run_load
from loadtests.openloop.plan import Plan
from loadtests.openloop.schedule import poisson
from loadtests.rehearsal.crowd import Shopper, Sign, crowd, opening
from loadtests.rehearsal.document import Document, copy_id, main_order, sandbox_copy, wanted
from loadtests.rehearsal.figures import Figures, figures, told
from loadtests.rehearsal.processes import Watch
from loadtests.rehearsal.service import Service, ServiceError
from loadtests.rehearsal.steps import check_size, rates
from loadtests.rehearsal.table import HEAD, conclusion, row
from loadtests.rehearsal.verdict import Limits, Verdict, broken, verdict

LEAD_SECONDS = 1.0
"""So long before the opening the crowd is there; less, where a step is short."""
PREPARE_SECONDS = 0.5
"""From a copy's creation to a step's beginning, about."""
SPARE_SECONDS = 600.0
"""A copy stays open for so long after its step, so that nothing ends by itself while it is looked at."""
CONNECTIONS_MIN, CONNECTIONS_MAX = 64, 2048
ANSWER_SECONDS_MAX = 5.0
SEED = 1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is to be rehearsed. Raises ValueError for what cannot be."""

    document: Document
    host: str
    service_key: str
    sign: Sign
    shoppers: int
    peak: float
    steps: int
    seconds: float
    """Of each step."""
    limits: Limits = field(default_factory=Limits)
    up_pid: int | None = None
    """Of the `up` that this is against, where that is on this machine."""

    def __post_init__(self) -> None:
        rates(self.peak, self.steps)
        check_size(self.peak, self.steps, self.seconds)
        wanted(self.document)
        _address(self.host)
        if self.shoppers < 1:
            raise ValueError("shoppers must be at least 1")


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it."""

    campaign: str
    copies: list[str]
    steps: list[Figures]
    verdict: Verdict
    audit: Document | None
    """Of all copies together; None when it could not be had."""
    failed: list[str]
    """What the deployment did not do for its merchant."""

    @property
    def ok(self) -> bool:
        return self.verdict.holds and self.audit is not None and bool(self.audit["ok"]) and not self.failed

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "campaign": self.campaign,
            "copies": self.copies,
            "steps": [step.as_json() for step in self.steps],
            "verdict": self.verdict.as_json(),
            "audit": self.audit,
            "failed": self.failed,
        }


async def rehearse(rehearsal: Rehearsal, say: Say) -> Rehearsed:
    """Rehearse, and `say` how it goes, line by line. Raises ServiceError when it cannot begin."""
    run = uuid.uuid4().hex[:8]
    document = rehearsal.document
    shoppers = crowd(
        rehearsal.shoppers,
        wanted(document),
        run,
        rehearsal.sign,
        takes_orders=document["kind"] == "trade_in",
    )
    planned = rates(rehearsal.peak, rehearsal.steps)
    names = [copy_id(document["id"], run, step) for step in range(1, len(planned) + 1)]
    failed: list[str] = []
    async with _service(rehearsal) as service:
        stage = _Stage(rehearsal, service, shoppers, run)
        try:
            await stage.prepare(names[0])
            count = f"{len(planned)} step{'s' if len(planned) > 1 else ''} of {rehearsal.seconds:g} s"
            say(f"rehearsing {document['id']} against {rehearsal.host}: {count}, {len(shoppers)} shoppers")
            say(HEAD)
            for rate, name in zip(planned, names, strict=True):
                step = await stage.play(rate, name)
                say(row(len(stage.played), step))
                if step.generator_faults or broken(step, rehearsal.limits):
                    break  # what comes after the first to saturate tells nothing new, and harms the more
        except ServiceError as error:
            if not stage.made:
                raise
            failed.append(str(error))
        finally:
            failed += await _close(service, stage.made)
        found = verdict(stage.played, rehearsal.limits, planned=len(planned))
        for line in conclusion(found, rehearsal.peak):
            say(line)
        audit = await _audit(service, stage.made, failed)
    for line in [*(audit_lines(audit) if audit else ["audit: could not be had"]), *failed]:
        say(line)
    return Rehearsed(document["id"], stage.made, stage.played, found, audit, failed)


class _Stage:
    """Where steps are played, one after another."""

    def __init__(self, rehearsal: Rehearsal, service: Service, shoppers: list[Shopper], run: str) -> None:
        self.made: list[str] = []
        """Copies that there are now."""
        self.played: list[Figures] = []
        self._rehearsal = rehearsal
        self._service = service
        self._shoppers = shoppers
        self._run = run
        self._url = _address(rehearsal.host)
        self._skew = timedelta(0)
        """How far the service's clock, which decides when a campaign opens, is ahead of ours."""

    async def prepare(self, first: str) -> None:
        """Make the first copy, and report the main orders that it takes."""
        found = await self._put(first)
        self._skew = datetime.fromisoformat(found["server_time"]) - datetime.now(UTC)
        orders = [one for one in self._shoppers if one.order_id is not None]
        if orders:
            await self._service.report([main_order(str(one.order_id), one.user) for one in orders])

    async def play(self, rate: float, name: str) -> Figures:
        """One opening, with so many arrivals a second."""
        rehearsal = self._rehearsal
        await self._put(name)
        plan = Plan(
            host=str(self._url.hostname),
            port=self._url.port or 80,
            schedule=poisson(rate, rehearsal.seconds, SEED + len(self.played)),
            connections_min=CONNECTIONS_MIN,
            connections_max=_connections_max(),
            answer_s=ANSWER_SECONDS_MAX,
        )
        path = self._url._replace(path=f"/v1/campaigns/{name}/reservations")
        request_of = opening(path, self._shoppers, f"{self._run}-{len(self.played) + 1}")
        before = await self._service.reading()
        watch = Watch(rehearsal.up_pid)
        result = await run_load(plan, request_of)
        cores, own, full = watch.look()
        after = await self._service.reading()
        takes_orders = any(one.order_id is not None for one in self._shoppers)
        step = figures(
            rate,
            result,
            told(before, after),
            lag_p99_ms_max=rehearsal.limits.generator_lag_p99_ms,
            cores=cores,
            processes={role: watch.count(role) for role in cores},
            generator_cores=own,
            machine_full=full,
            # Who comes again may: the first time, every order entitles.
            used_up_max=max(0, result.scheduled - len(self._shoppers)) if takes_orders else 0,
        )
        self.played.append(step)
        return step

    async def _put(self, name: str) -> Document:
        copied = self._copy(name)
        found = await self._service.put(copied)
        if name not in self.made:
            self.made.append(name)
        return found

    def _copy(self, name: str) -> Document:
        seconds = self._rehearsal.seconds
        lead = timedelta(seconds=PREPARE_SECONDS + min(LEAD_SECONDS, seconds / 4))
        opens_at = datetime.now(UTC) + self._skew + lead
        return sandbox_copy(self._rehearsal.document, name, opens_at, seconds + SPARE_SECONDS)


@asynccontextmanager
async def _service(rehearsal: Rehearsal) -> AsyncIterator[Service]:
    async with aiohttp.ClientSession() as session:
        yield Service(session, rehearsal.host, rehearsal.service_key)


async def _close(service: Service, names: list[str]) -> list[str]:
    """Close the copies; what went wrong with it."""
    closing = (service.close(name) for name in names)
    found = await asyncio.gather(*closing, return_exceptions=True)
    return [str(one) for one in found if isinstance(one, ServiceError)]


async def _audit(service: Service, names: list[str], failed: list[str]) -> Document | None:
    audits = []
    for name in names:
        try:
            audits.append(await service.audit(name))
        except ServiceError as error:
            failed.append(str(error))
            return None
    return {
        "ok": all(one["ok"] for one in audits),
        "campaigns": [campaign for one in audits for campaign in one["campaigns"]],
    }


def _address(host: str) -> SplitResult:
    """Raises ValueError for what the generator cannot speak to."""
    url = urlsplit(host)
    if url.scheme != "http" or not url.hostname or host != f"http://{url.netloc}":
        raise ValueError(
            f"{host}: not http://HOST:PORT, and nothing else "
            "(behind TLS, name a gateway or the balancer inside it)"
        )
    _ = url.port  # raises ValueError, with the reason
    return url


def _connections_max() -> int:
    """As many as this process may have, with some files to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted_files = 2 * CONNECTIONS_MAX
    if soft != resource.RLIM_INFINITY and soft < wanted_files:
        soft = wanted_files if hard == resource.RLIM_INFINITY else min(hard, wanted_files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, soft // 2)
