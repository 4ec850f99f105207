"""A payment provider that is made up: it charges, gives back, and tells of it late, twice, in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reservation.desk import Taken
from reservation.ids import PaymentId
from reservation.outcomes import Fault
from reservation.paying import Notice, NoticeType
from settlement.book import RefundDue
from settlement.refunds import RefundNotTaken
from tests.simulation.wire import Process, Server, Wire

RETURNED_AFTER_SECONDS = 60.0
"""A payment that nobody knows for so long is the provider's to return."""

Tell = Callable[[PaymentId, Notice], Awaitable[Taken]]


@dataclass
class Charge:
    payment: PaymentId
    amount: int
    succeeded: bool
    returned: bool = False
    """Given back by the provider itself: nobody knew what it was for."""


class Provider(Server):
    """Its own book is what I7 is judged by."""

    def __init__(self, wire: Wire, tell: Tell) -> None:
        super().__init__("provider", RefundNotTaken)
        self._wire = wire
        self._tell = tell
        self._process = Process(wire.loop, "provider")
        self.charges: dict[PaymentId, Charge] = {}
        self.refunds: dict[str, RefundDue] = {}
        self.telling = 0
        """Notices that were not taken yet."""

    def pay(self, payment: PaymentId, amount: int) -> None:
        """A shopper pays; once for each payment, however often it is tried."""
        dice = self._wire.dice
        known = self.charges.get(payment)
        if known is not None and known.succeeded:
            return
        succeeded = dice.random() < 0.85
        self.charges[payment] = Charge(payment, amount, succeeded)
        kind = NoticeType.PAYMENT_SUCCEEDED if succeeded else NoticeType.PAYMENT_FAILED
        self._wire.trace("provider", kind, payment, amount)
        self._send(payment, Notice(kind, payment.name, amount, "CNY", f"charge-{len(self.charges)}"))

    def refund(self, due: RefundDue) -> None:
        """Give back, once for each id. Asked again, it tells of it again."""
        if due.refund_id not in self.refunds:
            self.refunds[due.refund_id] = due
            self._wire.trace("provider refunds", due.refund_id, due.amount)
        payment = PaymentId.parse(due.payment_id)
        assert payment is not None
        name = due.refund_id.removeprefix(f"{payment.reservation}.")
        notice = Notice(
            NoticeType.REFUND_SUCCEEDED, payment.name, due.amount, "CNY", f"refund-{len(self.refunds)}", name
        )
        self._send(payment, notice)

    def _send(self, payment: PaymentId, notice: Notice) -> None:
        times = 2 if self._wire.dice.random() < 0.25 else 1
        self.telling += times
        for _ in range(times):
            self._process.run(self._until_taken(payment, notice))

    async def _until_taken(self, payment: PaymentId, notice: Notice) -> None:
        dice, loop = self._wire.dice, self._wire.loop
        await asyncio.sleep(dice.choice((0.01, 0.3, 1.5, 5.0)) * dice.random())
        began = loop.time()
        while True:
            try:
                taken = await self._tell(payment, notice)
            except Fault:
                taken = None
            if taken in (Taken.TAKEN, Taken.KNOWN):
                break
            if taken is not None and loop.time() - began > RETURNED_AFTER_SECONDS:
                if notice.type is NoticeType.PAYMENT_SUCCEEDED:
                    self.charges[payment].returned = True
                    self._wire.trace("provider returns", payment)
                break
            await asyncio.sleep(0.2 + dice.random() * 2)
        self.telling -= 1


class ProviderClient:
    """settlement.refunds.RefundProvider, as one process reaches it."""

    def __init__(self, wire: Wire, process: Process, server: Provider) -> None:
        self._wire = wire
        self._process = process
        self._server = server

    async def refund(self, refund: RefundDue) -> None:
        await self._wire.call(self._process, self._server, lambda: self._server.refund(refund))
