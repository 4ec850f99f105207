"""New reservations, many to a script run.

When a sale opens, thousands ask for the same thing in the same instant. While one run of reserve.lua is
on its way, whoever asks on the same terms joins the next: the terms are sent, and what they share is
read and written, once for all. Each has an answer of its own, and what is wrong with one is wrong
with that one only.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

from redis.exceptions import NoScriptError, ResponseError

from reservation.fence import Fence
from reservation.ids import ReservationId
from reservation.kernel import Asking, Claim, Gate, Terms
from reservation.keys import campaign_keys, offer_keys
from reservation.outcomes import Outcome
from reservation.pipe import Pipe, Waiting
from reservation.pipes import Pipes
from reservation.record import MadeOn
from reservation.scripts import script
from reservation.tracing import MADE, NO_TRACER, OUTCOME, Tracer, script_run

GROUP_MAX = 256
"""Reservations in one run: the store is busy with it for about 2 ms."""
OUTCOMES = {str(outcome).encode(): outcome for outcome in Outcome}
_OUTCOME, _RECORD = 0, 1
_MADE = str(Outcome.MOVED).encode()


class Reserver:
    """Puts those who ask on the same terms together."""

    def __init__(self, pipes: Pipes, fence: Fence, tracer: Tracer = NO_TRACER) -> None:
        self.tracer = tracer
        self._pipes = pipes
        self._fence = fence
        self._groups: dict[Terms, _Group] = {}
        self._commands: WeakKeyDictionary[Terms, list[Any]] = WeakKeyDictionary()

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        """Have it asked for soon."""
        group = self._groups.get(terms)
        if group is None or len(group.asking) == GROUP_MAX:
            group = self._groups[terms] = self._group(terms)
            group.pipe.put(group)
        group.pipe.unanswered += 1
        group.who += (digest, user)
        group.asking.append(asking)

    def wait(self) -> float:
        """For how many seconds who asks now has to wait, going by who is ahead and how fast it went."""
        return max(pipe.unanswered * pipe.seconds_each for pipe in self._pipes.all)

    def command(self, terms: Terms) -> list[Any]:
        """What a run on these terms begins with. The same list each time."""
        command = self._commands.get(terms)
        if command is None:
            command = self._commands[terms] = reserve_command(terms)
        return command

    def close(self, group: _Group) -> None:
        """Let nobody join it any more."""
        if self._groups.get(group.terms) is group:
            del self._groups[group.terms]

    def made(self, terms: Terms, entry_id: bytes, digests: list[str]) -> None:
        """The store has acknowledged these."""
        shard = campaign_keys(terms.campaign).shard
        self._fence.was_acknowledged(shard, entry_id, terms.campaign, digests, 1)

    def halve(self, group: _Group) -> None:
        """Ask again, in two groups."""
        half = len(group.asking) // 2
        for part in (slice(None, half), slice(half, None)):
            smaller = self._group(group.terms)
            smaller.pipe = group.pipe  # where they count as unanswered
            smaller.asking = group.asking[part]
            digests, users = group.who[::2][part], group.who[1::2][part]
            smaller.who = [one for who in zip(digests, users, strict=True) for one in who]
            smaller.pipe.put(smaller)

    def _group(self, terms: Terms) -> _Group:
        return _Group(self, terms, self._pipes.of(campaign_keys(terms.campaign).shard))


class _Group(Waiting):
    """Who asks on the same terms, and is served by one run."""

    name = "reserve"
    writes = True

    def __init__(self, reserver: Reserver, terms: Terms, pipe: Pipe) -> None:
        self._reserver = reserver
        self.pipe = pipe
        self._source: str | None = None
        self._sent_ns = 0
        self.terms = terms
        self.who: list[str] = []
        self.asking: list[Asking] = []

    @property
    def asked(self) -> int:
        return len(self.asking)

    def command(self) -> list[Any]:
        self._reserver.close(self)
        if self._reserver.tracer.below:
            self._sent_ns = time.time_ns()
        command = self._reserver.command(self.terms) + self.who
        if self._source is not None:
            command[:2] = ["EVAL", self._source]
        return command

    def take(self, reply: Any) -> None:
        self._reserver.close(self)  # where the store is away, it was never sent
        if isinstance(reply, NoScriptError) and self._source is None:
            # The store has forgotten the script, or never knew it.
            self._source = script("reserve").source
            self.pipe.put(self)
        elif isinstance(reply, ResponseError) and len(self.asking) > 1:
            # Nothing was made, and one of them may be to blame: let the others have their answer.
            self._reserver.halve(self)
        elif isinstance(reply, Exception):
            self.pipe.unanswered -= len(self.asking)
            if self._reserver.tracer.below:
                self._trace([], type(reply).__name__)
            for asking in self.asking:
                asking.failed(reply)
        else:
            self.pipe.unanswered -= len(self.asking)
            now_ms, entry_id = reply[0], reply[1]
            if entry_id:
                answers = zip(self.who[::2], reply[2:], strict=True)
                made = [digest for digest, answer in answers if _outcome(answer) == _MADE]
                self._reserver.made(self.terms, entry_id, made)
            if self._reserver.tracer.below:
                self._trace(reply[2:])
            for place, asking in enumerate(self.asking, 2):
                answer = reply[place]
                if isinstance(answer, bytes):
                    asking.answered(OUTCOMES[answer], now_ms, None)
                else:
                    asking.answered(OUTCOMES[answer[_OUTCOME]], now_ms, answer[_RECORD])

    def _trace(self, answers: Sequence[Any], fault: str = "") -> None:
        """Tell of this run, for each that is sampled: before they are answered, so that it ends first."""
        tracer, campaign = self._reserver.tracer, self.terms.campaign
        for place, digest in enumerate(self.who[::2]):
            if digest < tracer.below:
                answer = answers[place] if answers else fault
                outcome = answer if isinstance(answer, (bytes, str)) else answer[_OUTCOME]
                outcome = outcome if isinstance(outcome, str) else outcome.decode()
                tracer.tell(
                    script_run(
                        "reserve.lua",
                        ReservationId(campaign, digest),
                        MADE if outcome == Outcome.MOVED else 0,
                        self._sent_ns or time.time_ns(),  # where the store is away, it was never sent
                        self.asking[place].span_id,
                        {
                            OUTCOME: outcome,
                            "doorbuster.event": self.terms.event,
                            "doorbuster.group.reservations": len(self.asking),
                        },
                        failed=bool(fault),
                    )
                )


def _outcome(answer: Any) -> bytes:
    """Of one, alone or with its record."""
    found: bytes = answer if isinstance(answer, bytes) else answer[_OUTCOME]
    return found


def made_on(terms: Terms) -> MadeOn:
    """What the store keeps of the terms, for all reservations that are made on them."""
    claims = [part for claim in terms.claims for part in (claim.counter, claim.n)]
    facts = terms.facts.decode()
    return MadeOn(
        terms.sku, terms.quantity, str(terms.state), claims, terms.hold_ms, terms.fingerprint, facts
    )


def terms_name(packed: bytes) -> str:
    """The name that a campaign keeps packed terms under: the same terms, the same name. Short, since every
    reservation has it; should two ever have the same, the store refuses the second."""
    return urlsafe_b64encode(blake2b(packed, digest_size=6).digest()).decode()


def reserve_command(terms: Terms) -> list[Any]:
    """A run of reserve.lua, up to who asks."""
    keys = offer_keys(terms.campaign, terms.sku).for_reserve(terms.hold_ms)
    return ["EVALSHA", script("reserve").sha, len(keys), *keys, *reserve_arguments(terms)]


def reserve_arguments(terms: Terms) -> list[Any]:
    """ARGV of reserve.lua, up to who asks."""
    packed = made_on(terms).pack()
    arguments = [
        terms.campaign,
        *gate_arguments(terms.revision, terms.gate, terms.first_refusal, terms.last_refusal),
        terms.event,
        terms.data,
        terms.queued,
        int(terms.serves),
        terms_name(packed),
        packed,
    ]
    claims = claim_arguments(terms.claims)
    return [*arguments, len(arguments) + 1 + len(claims), *claims]


def gate_arguments(revision: int, gate: Gate, first_refusal: str = "", last_refusal: str = "") -> list[Any]:
    """What lua/include/campaign.lua reads."""
    opens, closes = gate.opens_at_ms, gate.closes_at_ms
    return [revision, opens, gate.before, closes, gate.after, first_refusal, last_refusal]


def claim_arguments(claims: Sequence[Claim]) -> list[Any]:
    """What lua/include/claims.lua reads."""
    args: list[Any] = []
    for claim in claims:
        args += (claim.counter, claim.n, "" if claim.cap is None else claim.cap, claim.refusal)
    return args
