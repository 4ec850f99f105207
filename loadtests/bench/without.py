"""Doorbuster's gateway with one of its measures taken away: `python -m loadtests.bench.without MEASURE ...`.

What follows the measure's name is what `doorbuster` is told.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jwt
import orjson
from aiohttp import web

from doorbuster import cli, vitals
from gateway import auth, fast_lane, granted, metrics, tally
from gateway.views import reservation_view
from reservation import pipe, reserver
from reservation.ids import ReservationId
from reservation.kernel import Terms
from reservation.record import Reservation


def no_fast_lane() -> None:
    fast_lane.FastLane.take = lambda *_: False  # type: ignore[method-assign]


def groups_of_one() -> None:
    reserver.GROUP_MAX = 1


def one_command_a_batch() -> None:
    """Groups of one that do not share a round trip either."""
    reserver.GROUP_MAX = 1
    pipe.BATCH_COMMANDS_MAX = 1


def tokens_verified_each_time() -> None:
    auth.Authenticator._remember = lambda *_: None  # type: ignore[method-assign]


def tokens_verified_each_time_by_pyjwt() -> None:
    tokens_verified_each_time()

    def claims(token: str, secret: bytes) -> Any:
        found = jwt.decode(token, secret, algorithms=["HS256"], options={"verify_aud": False})
        return {name: found[name] for name in found.keys() & {"sub", "exp", "nbf", "aud", "tier"}}

    auth.usual_claims = claims  # type: ignore[attr-defined]


def metrics_each_time() -> None:
    def note(
        counted: tally.Tally, campaign: str, kind: str, outcome: str, status: int, seconds: float, user: str
    ) -> None:
        metrics.RESERVATIONS.labels(campaign, kind, outcome).inc()
        metrics.REQUESTS.labels(fast_lane.ROUTE, "POST", str(status)).observe(seconds)
        counted._traffic.asked(campaign, outcome, [user])

    tally.Tally.note = note  # type: ignore[method-assign, assignment]


def no_metrics() -> None:
    """None of what the hot path counts, for metrics or reports, and of what a process tells of itself."""
    tally.Tally.note = lambda *_: None  # type: ignore[method-assign]
    vitals.StoreMetrics.answered = lambda *_: None  # type: ignore[method-assign]
    vitals.Vitals.told = lambda _: nullcontext()  # type: ignore[method-assign, return-value, assignment]


def answers_made_each_time() -> None:
    def made(self: Any, terms: Terms, campaign: Any) -> None:
        self.terms, self.campaign = terms, campaign

    def response(self: Any, digest: str, user: bytes, now_ms: int) -> bytes:
        record = reserver.made_on(self.terms).record(orjson.loads(user), now_ms)
        reservation = Reservation.of(ReservationId(self.terms.campaign, digest), record)
        body = orjson.dumps(reservation_view(reservation, self.campaign))
        headers = {"Location": f"/v1/reservations/{reservation.id}"}
        answer = web.Response(body=body, status=201, content_type="application/json", headers=headers)
        lines = [f"{name}: {value}" for name, value in answer.headers.items()]
        head = ["HTTP/1.1 201 Created", *lines, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(head).encode() + body

    granted.Granted.__init__ = made  # type: ignore[method-assign]
    granted.Granted.response = response  # type: ignore[method-assign]


def no_freeze() -> None:
    gc.freeze = lambda: None


MEASURES: dict[str, Callable[[], None]] = {
    made.__name__.replace("_", " "): made
    for made in (
        no_fast_lane,
        groups_of_one,
        one_command_a_batch,
        tokens_verified_each_time,
        tokens_verified_each_time_by_pyjwt,
        metrics_each_time,
        no_metrics,
        answers_made_each_time,
        no_freeze,
    )
}


if __name__ == "__main__":
    MEASURES[sys.argv.pop(1)]()
    cli.main()
