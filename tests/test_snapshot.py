"""A snapshot is a campaign at one instant, though it is read page by page while shoppers go on."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from reservation import snapshot as snapshots
from reservation.ids import digest_of
from reservation.kernel import RANKED, UNCAPPED, Claim, Miscount, Snapshot
from reservation.keys import campaign_keys
from reservation.miscounts import miscounts
from reservation.outcomes import AdjustOutcome, Outcome, StoreUnavailable
from reservation.record import MadeOn, Reservation, State
from reservation.redis_store import RedisStore, connect_redis
from tests.contract.test_kernel import SALE, first, quota, stock, then
from tests.contract.test_kernel import configure as configured
from tests.contract.test_restore import ANN, PAID
from tests.servers import free_port, redis_server
from tests.settlement.test_fence import Cut

CROWD = 3_000
SNAPSHOTS = 5


class _Bench:
    """What the contract's helpers need."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store


@pytest.fixture
async def store(redis_client: Redis) -> RedisStore:
    found = RedisStore(redis_client)
    await configured(_Bench(found), phone=1_000_000)  # type: ignore[arg-type]
    return found


async def crowd(store: RedisStore, count: int, name: str = "u") -> list[Reservation]:
    """So many have reserved."""
    terms, *_ = first(claims=(stock(1), quota(1, 9)))
    asking = (store.reserve(terms, digest_of(SALE, f"{name}{i}", "k"), f"{name}{i}") for i in range(count))
    return [moved.reservation for moved in await asyncio.gather(*asking) if moved.reservation is not None]


async def taken(store: RedisStore) -> Snapshot:
    found = await store.snapshot(SALE)
    assert found is not None
    return found


@asynccontextmanager
async def shopping(store: RedisStore, seed: int) -> AsyncIterator[Callable[[], int]]:
    """People come, pay, cancel and come again as fast as they can. Says how often something was changed."""
    rng, changes, over = random.Random(seed), 0, False
    terms, *_ = first(claims=(stock(1), quota(1, 9)))
    spend = Claim(RANKED, 5, UNCAPPED, Outcome.QUOTA_EXCEEDED)

    async def shop(number: int) -> None:
        nonlocal changes
        visit = 0
        while not over:
            # Mostly what was there when it was read, and sometimes something new of somebody who was.
            user, visit = f"u{rng.randrange(CROWD)}", visit + 1
            key = "k" if rng.random() < 0.8 else f"{number}/{visit}"
            moved = await store.reserve(terms, digest_of(SALE, user, key), user)
            changes += moved.outcome is Outcome.MOVED
            kept = rng.random() < 0.5
            claims = (stock(1), quota(1, 9), spend) if kept else ()
            state = State.CONFIRMED if kept else State.CANCELLED
            changes += (await store.move(then(moved, state, claims=claims))).outcome is Outcome.MOVED

    shoppers = [asyncio.create_task(shop(number)) for number in range(8)]
    try:
        yield lambda: changes
    finally:
        over = True
        await asyncio.gather(*shoppers)


@pytest.mark.parametrize("seed", [1, 2])
async def test_is_of_one_instant_while_everybody_shops(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(snapshots, "PAGE_COUNT", 100)
    monkeypatch.setattr(snapshots, "CHANGED_MAX", 100)
    monkeypatch.setattr(snapshots, "PAGES_UNTIL_LOOK", 7)
    await crowd(store, CROWD)
    async with shopping(store, seed) as changes:
        for _ in range(SNAPSHOTS):
            before = changes()
            found = await taken(store)
            assert changes() > before + 20, "shoppers went on while it was read"
            assert miscounts(found) == []
            assert found.used["stock/phone"] == sum(
                one.state is not State.CANCELLED for one in found.reservations
            )
    found = await taken(store)
    assert miscounts(found) == []
    assert len({one.id for one in found.reservations}) == len(found.reservations)


async def test_has_what_was_restored_meanwhile(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back while a snapshot is read is in it, claims and all."""
    await crowd(store, 1_000)
    await _after_its_pages(monkeypatch, lambda: store.restore(ANN, PAID))
    found = await taken(store)
    assert next(one.version for one in found.reservations if one.id == ANN) == PAID.version
    assert miscounts(found) == []


async def test_is_begun_anew_where_its_trail_was_lost(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, redis_client: Redis
) -> None:
    """As when its reader stood still for too long."""
    await crowd(store, 1_000)
    keys = campaign_keys(SALE)

    async def lose() -> None:
        await redis_client.delete(keys.trail)
        await crowd(store, 100, "later")

    await _after_its_pages(monkeypatch, lose)
    found = await taken(store)
    assert len(found.reservations) == 1_100
    assert miscounts(found) == []


async def test_is_begun_anew_where_counters_were_adjusted(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowd(store, 1_000)
    times = await _after_its_pages(
        monkeypatch, lambda: store.adjust(SALE, 0, [Miscount("stock/phone", 0, 0)])
    )
    await taken(store)
    assert times == [1, 1, 2, 2]


async def test_that_is_never_left_alone_is_given_up(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, redis_client: Redis
) -> None:
    await crowd(store, 1_000)
    keys = campaign_keys(SALE)
    await _after_its_pages(
        monkeypatch, lambda: redis_client.hincrby(keys.campaign, "adjusted", 1), always=True
    )
    with pytest.raises(StoreUnavailable, match="begun 3 times in vain"):
        await store.snapshot(SALE)


async def test_is_begun_anew_where_another_server_answers(
    redis_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks what was read of the one before, and that nobody has entered yet."""
    (tmp_path / "redis").mkdir()
    server, port, scan, cuts = ExitStack(), free_port(), snapshots._Reading.scan, list[Cut]()

    def start() -> str:
        return server.enter_context(redis_server(redis_program, tmp_path / "redis", port=port))

    with server:
        async with connect_redis(start()) as client:
            store = RedisStore(client)
            await configured(_Bench(store), phone=1_000_000)  # type: ignore[arg-type]
            await crowd(store, 1_000)

            async def interrupted(reading: Any) -> None:
                if cuts:
                    await scan(reading)
                    return
                cuts.append(Cut(tmp_path))
                await crowd(store, 100, "lost")
                await scan(reading)
                server.close()
                cuts[0].happen()
                start()
                # As a pool does by itself with a connection that ended while it lay idle.
                await client.connection_pool.disconnect(inuse_connections=False)

            monkeypatch.setattr(snapshots._Reading, "scan", interrupted)
            found = await taken(store)
    assert len(found.reservations) == 1_000
    assert miscounts(found) == []


async def test_its_trail_is_no_longer_than_readers_need(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, redis_client: Redis
) -> None:
    """However often it is asked for, as by who audits a sale all the time."""
    monkeypatch.setattr(snapshots, "KEPT_MS", 200)
    began = await store.now_ms()
    while (now := await store.now_ms()) < began + 400:
        await taken(store)
        await crowd(store, 1, f"at{now}")
    await taken(store)
    ((oldest, _),) = await redis_client.xrange(campaign_keys(SALE).trail, count=1)
    assert int(oldest.partition(b"-")[0]) >= began + 200


async def test_what_somebody_deletes_meanwhile_does_not_break_it(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, redis_client: Redis
) -> None:
    await crowd(store, 1_000)

    async def come_and_go() -> None:
        (one,) = await crowd(store, 1, "later")
        await redis_client.hdel(campaign_keys(SALE).reservations, one.id.digest)  # type: ignore[misc]

    await _after_its_pages(monkeypatch, come_and_go)
    assert [one.lacks for one in miscounts(await taken(store)) if one.counter == "stock/phone"] == [-1]


async def test_of_which_each_was_made_on_its_own_terms_holds_nobody_up(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a trade-in: a gateway that audits one serves others meanwhile."""
    monkeypatch.setattr(snapshots, "PAGE_COUNT", 7)
    made = {f"u{n}": await store.reserve(*first(user=f"u{n}", n=n, claims=(stock(n),))) for n in range(1, 41)}
    unpack, threads = MadeOn.unpack, list[int]()

    def watched(packed: bytes) -> MadeOn:
        threads.append(threading.get_ident())
        return unpack(packed)

    monkeypatch.setattr(MadeOn, "unpack", watched)
    found = await taken(store)
    assert {one.user: one for one in found.reservations} == {
        user: one.reservation for user, one in made.items()
    }
    assert threads
    assert threading.get_ident() not in threads


async def test_leaves_nothing_behind(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, redis_client: Redis
) -> None:
    """A reader that has gone has scripts note their changes for a while, and no longer."""
    monkeypatch.setattr(snapshots, "KEPT_MS", 50)
    held = await crowd(store, 10)
    await taken(store)
    keys = campaign_keys(SALE)
    until = int(await redis_client.hget(keys.campaign, "trail_until") or 0)  # type: ignore[misc]
    while await store.now_ms() < until:
        await asyncio.sleep(0.001)
    assert not await redis_client.exists(keys.trail), "who goes on now would lack what is not noted any more"
    await store.move(then(await _again(store, held[0]), State.CANCELLED))
    await crowd(store, 10, "later")
    await store.restore(ANN, PAID)
    assert not await redis_client.exists(keys.trail)


async def test_its_trail_ends_with_the_last_millisecond_that_is_noted(
    store: RedisStore, redis_client: Redis
) -> None:
    """Redis keeps a key for the whole millisecond of its end."""
    await taken(store)
    keys = campaign_keys(SALE)
    until = int(await redis_client.hget(keys.campaign, "trail_until") or 0)  # type: ignore[misc]
    assert await redis_client.pexpiretime(keys.trail) == until - 1


async def test_of_two_that_found_the_same_one_moves_the_counter(
    store: RedisStore, redis_client: Redis
) -> None:
    await crowd(store, 10)
    keys = campaign_keys(SALE)
    await redis_client.hincrby(keys.used, "stock/phone", 5)  # type: ignore[misc]
    one, other = await taken(store), await taken(store)
    await crowd(store, 3, "later")
    assert await store.adjust(SALE, one.adjusted, miscounts(one)) is AdjustOutcome.ADJUSTED
    assert await store.adjust(SALE, other.adjusted, miscounts(other)) is AdjustOutcome.CONFLICT
    found = await taken(store)
    assert found.used["stock/phone"] == 13
    assert miscounts(found) == []


async def test_many_counters_are_moved_in_turn(
    store: RedisStore, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reservation.redis_store._ADJUSTED_AT_ONCE", 3)
    await crowd(store, 5)
    await redis_client.hdel(campaign_keys(SALE).shard.users, *(f"u{i}" for i in range(5)))  # type: ignore[misc]
    await redis_client.zadd(campaign_keys(SALE).ranking, {"u1": 7, "u2": -7})
    found = await taken(store)
    assert [(one.counter, one.lacks) for one in miscounts(found)] == [
        *((f"{RANKED}{user}", lacks) for user, lacks in (("u1", -7), ("u2", 7))),
        *((f"quota@u{i}", 1) for i in range(5)),
    ]
    assert await store.adjust(SALE, found.adjusted, miscounts(found)) is AdjustOutcome.ADJUSTED
    assert miscounts(await taken(store)) == []


async def _again(store: RedisStore, held: Reservation) -> Any:
    """The move that made it, as its replay tells it."""
    terms, *_ = first(claims=(stock(1), quota(1, 9)))
    return await store.reserve(terms, held.id.digest, held.user)


async def _after_its_pages(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[Any]], *, always: bool = False
) -> list[int]:
    """Have something happen when all pages of a snapshot were read: of the first attempt, unless always.

    What is returned grows by the number of the attempt at the beginning and the end of each attempt's scan.
    """
    scan, times, attempts = snapshots._Reading.scan, [], 0
    hscan = Redis.hscan

    async def watched(reading: Any) -> None:
        nonlocal attempts
        attempts += 1
        attempt = attempts
        times.append(attempt)

        async def page(client: Any, *args: Any, **options: Any) -> Any:
            found = await hscan(client, *args, **options)
            if found[0] == 0 and (always or attempt == 1):
                await happens()
            return found

        monkeypatch.setattr(Redis, "hscan", page)
        await scan(reading)
        times.append(attempt)

    monkeypatch.setattr(snapshots._Reading, "scan", watched)
    return times
