"""A master that goes: the sentinels name another, and every process goes there and nowhere else."""

from __future__ import annotations

import signal
import time

from reservation.redis_store import RedisStore
from reservation.servers import connected
from tests.ha.redis_servers import Guarded
from tests.ha.shoppers import ASKING, Shoppers, on_sale

UNITS = 1_000_000


async def test_shoppers_go_on_when_the_master_was_killed(guarded: Guarded) -> None:
    async with connected(guarded.url) as servers:
        store = RedisStore(servers)
        shoppers = Shoppers(store, await on_sale(store, "sale", UNITS))
        async with shoppers.coming():
            await shoppers.more()
            # What the replica does not have when its master dies is lost: replication does not wait.
            acknowledged = set(shoppers.told)
            guarded.catch_up()
            guarded.master.kill()
            await shoppers.more()
        assert guarded.named() == guarded.replica.port
        assert shoppers.not_made > 0, "while there was no master, nobody was kept waiting"
        assert acknowledged <= await shoppers.check(lost=ASKING)


async def test_a_master_that_hung_and_comes_back_is_left_for_the_new_one(guarded: Guarded) -> None:
    async with connected(guarded.url) as servers:
        store = RedisStore(servers)
        shoppers = Shoppers(store, await on_sale(store, "sale", UNITS))
        async with shoppers.coming():
            await shoppers.more()
            guarded.master.signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await shoppers.more()
            assert guarded.named() == guarded.replica.port
            assert time.monotonic() - stopped < 10
            assert shoppers.unknown > 0, "what was on its way when it hung"
            guarded.master.signal(signal.SIGCONT)
            ran = guarded.master.scripts_run()
            await shoppers.more()
            assert guarded.master.scripts_run() == ran, "nobody asks it for anything"
        await shoppers.check(lost=ASKING)
