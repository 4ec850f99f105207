"""The judge: I1 to I9, worked out anew from what clients were told, what the store keeps, the book's rows
and the provider's own book.

It shares no rule with what it judges: units, quotas and money are added up here from documents and states.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from reservation.ids import ReservationId
from reservation.record import Reservation
from tests.simulation.log import ClientLog, Standing
from tests.simulation.loop import START_SECONDS
from tests.simulation.provider import Charge, Provider
from tests.simulation.roles import Servers
from tests.simulation.wire import Trace, now

TAKING = frozenset({"held", "deposit_paid", "confirmed"})
"""States in which units are held or sold."""
OVER = frozenset({"confirmed", "expired", "cancelled", "forfeited", "refunded"})
"""States that a reservation may be left in for ever."""
VIOLATIONS_MAX = 20
_EDGE_SECONDS = 0.005
"""Nobody is called early or late by less: the store's clock counts milliseconds."""


class Checker:
    """Looks at the store while it runs, and judges everything at the end."""

    def __init__(self, log: ClientLog, servers: Servers, provider: Provider) -> None:
        self._log = log
        self._servers = servers
        self._provider = provider
        self.violations: list[str] = []
        self.reached: set[str] = set()
        self.given_up: set[str] = set()
        """What a repair has said that it cannot bring back: it is for people to see to."""
        self._lost_at = float("-inf")
        self._floor: dict[str, int] = {}
        """By id: the version that was left of it anywhere when the store lost something."""
        self._gone: set[str] = set()
        """Of these, some version is left nowhere."""
        self._heard: set[str] | None = None
        """Campaigns that the book had heard of when the store lost something: no other comes back."""

    def complain(self, invariant: str, what: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{invariant}: {what}")

    def lost(self, before: Mapping[str, Reservation], floor: Mapping[str, int], at: float) -> None:
        """The store has lost something; `floor` is what is left of each reservation, anywhere."""
        self._lost_at, self._floor, self._heard = at, dict(floor), set(self._servers.book.campaigns)
        self._gone = {name for name, one in before.items() if floor.get(name, 0) < one.version}
        self.reached.add("lost for ever" if self._gone else "lost, and nothing of it for ever")

    # At any instant.

    def look(self, trace: Trace) -> None:
        """I1, I2, I3 and I9, of the store as it is."""
        if self.violations:
            return
        for name in self._servers.book.campaigns:
            self._look_at(name)
        for violation in self.violations:
            trace(violation)

    def _look_at(self, name: str) -> None:
        snapshot = now(self._servers.store.memory.model.snapshot(name))
        stored = now(self._servers.store.memory.model.campaign(name))
        if snapshot is None or stored is None:
            return
        document = orjson.loads(stored.document)
        taking = [one for one in snapshot.reservations if one.state in TAKING]
        claimed: Counter[str] = Counter()
        tally: Counter[str] = Counter()
        for one in snapshot.reservations:
            tally[f"{one.state}/{one.sku}"] += one.quantity
            if one.claims and one.state not in TAKING:
                self.complain("I1", f"{one.id} is {one.state} and holds {one.claims}")
            for counter, n in one.claims:
                claimed[counter + one.user if counter.endswith("@") else counter] += n
        for counter in claimed.keys() | snapshot.used.keys():
            if claimed[counter] != snapshot.used.get(counter, 0):
                self.complain(
                    "I1", f"{counter}: {claimed[counter]} claimed, {snapshot.used.get(counter, 0)} counted"
                )
        for key in tally.keys() | {key for key in snapshot.tally if not key.startswith("waiting/")}:
            if tally[key] != snapshot.tally.get(key, 0):
                self.complain("I1", f"{key}: {tally[key]} units, {snapshot.tally.get(key, 0)} in the tally")
        for offer in document["offers"]:
            self._offer(name, document, offer, taking, snapshot.used, snapshot.caps)
        per_user = document.get("per_user")
        for user, units in _units(taking, lambda one: one.user).items():
            if per_user is not None and units > per_user:
                self.complain("I3", f"{user} has {units}, the quota is {per_user}")
        if document["kind"] == "trade_in":
            grants = document["entitlement"]["grants"]
            for order, units in _units(taking, lambda one: str(one.facts.order_id)).items():
                if units > grants:
                    self.complain("I9", f"{units} units to {order}, it entitles to {grants}")

    def _offer(
        self,
        name: str,
        document: dict[str, Any],
        offer: dict[str, Any],
        taking: list[Reservation],
        used: Mapping[str, int],
        caps: Mapping[str, int],
    ) -> None:
        sku, stock = offer["sku"], offer["stock"]
        own = [one for one in taking if one.sku == sku]
        units = sum(one.quantity for one in own)
        counter = f"stock/{sku}"
        if caps.get(counter) != stock:
            self.complain("I1", f"{sku}: {stock} in the document, {caps.get(counter)} in the store")
        if units != used.get(counter, 0):
            self.complain("I1", f"{sku}: {units} held and sold, {used.get(counter, 0)} counted")
        if units > stock:
            self.complain("I2", f"{sku}: {units} held and sold of {stock}")
        for user, had in _units(own, lambda one: one.user).items():
            if offer.get("per_user") is not None and had > offer["per_user"]:
                self.complain("I3", f"{user} has {had} of {sku}, the quota is {offer['per_user']}")
        for gift in offer.get("gifts", ()):
            claim = f"gift/{sku}/{gift['sku']}"
            given = sum(n for one in own for counter, n in one.claims if counter == claim)
            if given > gift["first"]:
                self.complain("I9", f"{given} of {claim}, {gift['first']} were promised")

    # At the end.

    def judge(self) -> None:
        book = self._servers.book
        stored: dict[str, Reservation] = {}
        for name in book.campaigns:
            snapshot = now(self._servers.store.memory.model.snapshot(name))
            if snapshot is None:
                self.complain("I4", f"the store has no {name}")
                continue
            self._look_at(name)
            stored |= {str(one.id): one for one in snapshot.reservations}
        for name, one in stored.items():
            self._agrees(name, one)
        for name in book.orders.keys() - stored.keys() - self.given_up:
            if self._heard is None or book.orders[name]["campaign"] in self._heard:
                self.complain("I5", f"{name}: an order, and no reservation")
        self._sold()
        self._promises()
        self._keys(stored)
        self._money(stored)
        self._lines()
        self._main_orders(stored)
        self.reached |= {f"{one.facts.kind} {one.state}" for one in stored.values()}
        self.reached |= {f"event {row['type']}" for row in book.events.values()}

    def _sold(self) -> None:
        """I2, by the book: of nothing more was sold than there ever was."""
        book = self._servers.book
        stock: Counter[tuple[str, str]] = Counter()
        for revision in book.revisions.values():
            for offer in revision["document"]["offers"]:
                key = revision["id"], offer["sku"]
                stock[key] = max(stock[key], offer["stock"])
        sold: Counter[tuple[str, str]] = Counter()
        for row in book.orders.values():
            if row["state"] == "confirmed":
                sold[row["campaign"], row["sku"]] += row["quantity"]
        for key, units in sold.items():
            if units > stock[key]:
                self.complain(
                    "I2", f"{units} of {key} were sold, by the book; there were {stock[key]} at most"
                )

    def _agrees(self, name: str, one: Reservation) -> None:
        """I4: a reservation is one order, in one state that can stay, and its history is whole."""
        if one.state not in OVER:
            self.complain("I4", f"{name} is {one.state} for ever")
        row = self._servers.book.orders.get(name)
        if row is None:
            self.complain("I4", f"{name}: {one.state}, and no order")
            return
        if name in self.given_up:
            return
        in_store = (one.version, one.state, one.quantity, one.sku, one.user, one.facts.pack().decode())
        in_book = (
            row["version"],
            row["state"],
            row["quantity"],
            row["sku"],
            row["user"],
            row["record"]["facts"],
        )
        if in_store != in_book:
            self.complain("I4", f"{name}: the store says {in_store}, the book {in_book}")
        if sorted(map(tuple, row["record"]["claims"])) != sorted(one.claims):
            self.complain(
                "I4", f"{name}: claims {one.claims} in the store, {row['record']['claims']} in the book"
            )
        missing = [v for v in range(1, row["version"] + 1) if (name, v) not in self._servers.book.events]
        if missing:
            self.complain("I4", f"{name}: version {row['version']}, and no event {missing}")

    def _promises(self) -> None:
        """I4: what a client was told is in the book, as it was told."""
        book = self._servers.book
        for told in self._log.told:
            one = told.reservation
            name = str(one.id)
            if told.sent_at <= self._lost_at and one.version > self._floor.get(name, 0):
                continue  # it is what this setting may lose
            row = book.orders.get(name)
            event = book.events.get((name, one.version))
            told_anew = event is not None and event["type"] == "restated"
            if name in self.given_up and row is not None and row["version"] >= one.version:
                continue  # it is in the book, and that is all that there is of it
            if row is None or row["version"] < one.version or event is None:
                self.complain(
                    "I4", f"{name}: version {one.version}, {one.state}, was acknowledged and is lost"
                )
            elif told_anew or name in self._gone:
                continue  # how it was then is not known any more
            elif (event["state"], event["quantity"]) != (one.state, one.quantity):
                self.complain("I4", f"{name}: {one.state} was acknowledged, {event['state']} written down")

    def _keys(self, stored: Mapping[str, Reservation]) -> None:
        """I6: one key, one reservation, and none that nobody asked for."""
        for (campaign, user, key), ids in self._log.ids_of_key.items():
            if ids != {ReservationId.derive(campaign, user, key)}:
                self.complain("I6", f"{user}'s {key} has got {sorted(map(str, ids))}")
        for name, one in stored.items():
            asked = self._log.asked.get(one.id)
            if asked is not None:
                first = self._servers.book.events.get((name, 1))
                made = first["quantity"] if first and first["type"] == "reserved" else asked[2]
                if (one.user, one.sku, made) != asked:
                    self.complain("I6", f"{name} is {one.user}'s {made} {one.sku}, {asked} was asked for")
            elif (one.id.campaign, one.user) not in self._log.joined:
                self.complain("I6", f"{name}: nobody asked for it")

    def _money(self, stored: Mapping[str, Reservation]) -> None:
        """I7, by the provider's book."""
        charges: dict[str, list[Charge]] = defaultdict(list)
        for charge in self._provider.charges.values():
            if charge.succeeded and not charge.returned:
                charges[str(charge.payment.reservation)].append(charge)
        returned: Counter[str] = Counter()
        for refund in self._provider.refunds.values():
            returned[refund.payment_id] += refund.amount
        for name in charges.keys() | stored.keys():
            paid = charges[name]
            for charge in paid:
                if returned[str(charge.payment)] > charge.amount:
                    back = returned[str(charge.payment)]
                    self.complain("I7", f"{charge.payment}: {charge.amount} charged, {back} given back")
            if name in self._gone or name in self.given_up:
                continue
            one = stored.get(name)
            if one is None:
                self.complain("I7", f"{name}: {len(paid)} charges for nothing")
                continue
            left = sum(charge.amount - returned[str(charge.payment)] for charge in paid)
            self._kept(name, one, left, sum(charge.amount for charge in paid))

    def _kept(self, name: str, one: Reservation, left: int, charged: int) -> None:
        """Whether the merchant has what this reservation's state says, and the book says so."""
        presale = one.facts.kind == "presale"
        owed = (90 if presale else 100) * one.quantity if one.state == "confirmed" else 0
        kept = one.facts.kept if presale else 0
        if left != owed + kept:
            self.complain("I7", f"{name}: {one.state}, {left} was kept, {owed} is owed and {kept} forfeited")
        document = self._servers.book.campaigns[one.id.campaign]["document"]
        # Forfeited it stays, also where a balance that came too late was given back.
        history = (row for (found, _), row in self._servers.book.events.items() if found == name)
        forfeited = any(row["type"] in ("forfeited", "restated") for row in history)
        if kept and not forfeited and document.get("deposit_refundable"):
            self.complain("I7", f"{name}: {one.state}, and {kept} of a refundable deposit are kept")
        book = self._servers.book
        payments = [row for row in book.payments.values() if row["id"] == name]
        refunds = [row for row in book.refunds.values() if row["id"] == name]
        in_book = sum(row["amount"] for row in payments if row["status"] == "succeeded")
        back = sum(row["amount"] for row in refunds)
        if (in_book, back) != (charged, charged - left):
            self.complain(
                "I7", f"{name}: {charged} charged and {charged - left} given back; book {in_book}, {back}"
            )
        if any(row["status"] != "succeeded" for row in refunds):
            self.complain("I7", f"{name}: a refund was made, and the book waits for it")

    def _lines(self) -> None:
        """Nobody is served over the head of somebody who came before and wanted no more."""
        if self._lost_at > 0:
            return  # a store that has lost something may have lost the line
        served: dict[tuple[str, str], list[tuple[float, str, int, str]]] = defaultdict(list)
        for (name, version), row in self._servers.book.events.items():
            if version == 1 and row["type"] in ("offered", "reserved"):
                place = row["id"].index(name)
                at = _seconds(row["created_at"])
                served[row["campaign"], row["sku"]].append(
                    (at, row["user"][place], row["quantity"], row["type"])
                )
        for waiting in self._log.lines:
            self._line(waiting, sorted(served[waiting.campaign, waiting.sku]))

    def _line(self, waiting: Standing, served: list[tuple[float, str, int, str]]) -> None:
        own = [at for at, user, _, how in served if user == waiting.user and how == "offered"]
        own_at = next((at for at in own if at > waiting.asked_at - _EDGE_SECONDS), None)
        if own_at is None or own_at > waiting.left_at - _EDGE_SECONDS:
            return  # left, or the user's own limits refused
        for at, user, quantity, how in served:
            if (
                not waiting.placed_at + _EDGE_SECONDS < at < own_at - _EDGE_SECONDS
                or quantity < waiting.quantity
            ):
                continue
            stood = [one for one in self._log.lines if one.user == user and one.sku == waiting.sku]
            last = max(
                (one for one in stood if one.asked_at < at), key=lambda one: one.asked_at, default=None
            )
            came_at = last.since if last else at
            if how == "reserved" or came_at > waiting.placed_at:
                self.complain(
                    "line", f"{user} got {quantity} {waiting.sku} at {at:.3f} before {waiting.user}"
                )

    def _main_orders(self, stored: Mapping[str, Reservation]) -> None:
        """I9: nothing hangs on a main order that was cancelled."""
        for name, one in stored.items():
            if one.facts.order_id is None or one.state not in TAKING:
                continue
            order = now(self._servers.store.memory.model.order(one.facts.order_id))
            if order is not None and orjson.loads(order.body)["state"] == "cancelled":
                self.complain("I9", f"{name} is {one.state}, and {one.facts.order_id} was cancelled")


def _units(found: Iterable[Reservation], of: Any) -> Counter[str]:
    units: Counter[str] = Counter()
    for one in found:
        units[of(one)] += one.quantity
    return units


def _seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp() - START_SECONDS
