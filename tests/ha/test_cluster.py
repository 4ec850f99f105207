"""Shards on several nodes: what happens to one is not felt by the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reservation.cluster import SLOTS, Cluster
from reservation.keys import SHARDS, shard_of
from reservation.outbox import Outbox
from reservation.redis_store import RedisStore
from reservation.servers import connected
from reservation.watch import Watch
from settlement.audit import Auditor
from settlement.book import Book
from settlement.dead_letters import StoreDeadLetters
from settlement.source import OutboxSource
from tests.ha.redis_servers import Member, Nodes, started
from tests.ha.shoppers import Shoppers, on_sale
from tests.settlement.conftest import open_shop
from tests.settlement.running import working
from tests.test_watch import Ear

UNITS = 1_000_000


@pytest.fixture
async def servers(cluster: Nodes) -> AsyncIterator[Cluster]:
    for node in cluster.nodes:
        node.call("FLUSHALL")
    async with connected(cluster.url) as found:
        assert isinstance(found, Cluster)
        yield found


def sale_in(cluster: Nodes, *, on: Member | None = None, off: Member | None = None) -> str:
    """A campaign's id whose shard this node keeps, or another than this one."""
    for number in range(1_000):
        name = f"sale-{number}"
        owner = cluster.owner(shard_of(name))
        if (on is None or owner is on) and owner is not off:
            return name
    raise LookupError


async def test_shards_are_found_where_they_are(cluster: Nodes, servers: Cluster) -> None:
    await RedisStore(servers).now_ms()
    await servers.learn()
    assert [port for _, port in servers.owners] == [cluster.owner(shard).port for shard in range(SHARDS)]
    assert len(servers.nodes()) == 3


async def test_a_shard_moves_to_another_node_while_it_is_sold_from(cluster: Nodes, servers: Cluster) -> None:
    store = RedisStore(servers)
    moving = sale_in(cluster)
    shard = shard_of(moving)
    source = cluster.owner(shard)
    target = next(one for one in cluster.nodes if one is not source)
    staying = sale_in(cluster, off=source)
    away = Shoppers(store, await on_sale(store, moving, UNITS))
    home = Shoppers(store, await on_sale(store, staying, UNITS))
    async with away.coming(), home.coming():
        await away.more()
        await asyncio.to_thread(cluster.begin_to_move, SLOTS[shard], source, target)
        await asyncio.to_thread(cluster.move_some, SLOTS[shard], source, target)
        await home.more()  # while half of it is here and half there
        await asyncio.to_thread(cluster.move_rest, SLOTS[shard], source, target)
        await away.more()
        await home.more()
    assert cluster.owner(shard) is target
    assert (home.not_made, home.unknown) == (0, 0), "the other shards have nothing to do with it"
    assert away.unknown == 0, "a node that does not do it says so"
    await away.check()
    await home.check()


async def test_a_shard_that_moves_with_an_older_copy_is_fenced_on_a_node_that_is_known(
    cluster: Nodes, servers: Cluster
) -> None:
    """A node that keeps other shards is talked to already. Given this one, it is looked at anew."""
    store = RedisStore(servers)
    await servers.learn()
    moving = sale_in(cluster)
    shard = shard_of(moving)
    source = cluster.owner(shard)
    staying = sale_in(cluster, off=source)
    target = cluster.owner(shard_of(staying))
    shoppers = Shoppers(store, await on_sale(store, moving, UNITS))
    others = Shoppers(store, await on_sale(store, staying, UNITS))
    await others.shop("there is a connection to the target")
    await shoppers.shop("in the copy")
    copy = cluster.copy_of(SLOTS[shard], source)
    await shoppers.shop("after the copy")
    cluster.move_copy(SLOTS[shard], copy, source, target)
    await shoppers.shop("after the move")
    assert shoppers.fenced, "it was found out before anything was sold"
    await shoppers.check(lost=1)
    assert others.unknown == shoppers.unknown == 0, "nobody was cut off for it"


async def test_a_replica_that_is_promoted_with_less_is_fenced(redis_program: Path, tmp_path: Path) -> None:
    own = Nodes(redis_program, tmp_path)
    with started(own):
        master = own.nodes[1]
        replica = own.add_replica(master)
        async with connected(own.url) as servers:
            store = RedisStore(servers)
            its, others = sale_in(own, on=master), sale_in(own, off=master)
            shoppers = Shoppers(store, await on_sale(store, its, UNITS))
            elsewhere = Shoppers(store, await on_sale(store, others, UNITS))
            await shoppers.shop("while the replica follows")
            own.part(master, replica)
            await shoppers.shop("only the master has this")
            master.kill()
            await elsewhere.shop("of another node")
            await shoppers.shop("of the new master")
            assert replica.call("ROLE")[0] == "master"
            assert shoppers.fenced, "it was found out before anything was sold"
            assert (elsewhere.not_made, elsewhere.unknown) == (0, 0)
            await shoppers.check(lost=1)


async def test_a_node_that_is_restarted_is_missed_by_its_own_shards_only(
    cluster: Nodes, servers: Cluster
) -> None:
    store = RedisStore(servers)
    node = cluster.nodes[1]
    its, others = sale_in(cluster, on=node), sale_in(cluster, off=node)
    at_its = Shoppers(store, await on_sale(store, its, UNITS))
    at_others = Shoppers(store, await on_sale(store, others, UNITS))
    async with at_its.coming(), at_others.coming():
        await at_its.more()
        node.kill()
        await at_others.more()
        await at_its.told_at_once()
        await asyncio.to_thread(node.start)
        await at_its.more()
    assert (at_others.not_made, at_others.unknown) == (0, 0)
    await at_its.check()
    await at_others.check()


async def test_what_was_sold_on_every_shard_is_settled_and_told(servers: Cluster, book: Book) -> None:
    shops = [await open_shop(servers, book) for _ in range(6)]
    source = OutboxSource(Outbox(servers, "worker"), StoreDeadLetters(servers))
    ear, watch = Ear(), Watch(servers, shops[0].store)
    async with working(source, book):
        for shop in shops:
            held = await shop.reserve("ann")
            watch.add(held.id, ear.tell)
            await ear.hears(held.id, 1)
            await shop.pay(held)
            await ear.hears(held.id, 3)
            watch.remove(held.id)
        auditor = Auditor(shops[0].store, book, settle_seconds_max=30)
        audit = await auditor.audit([shop.campaign for shop in shops])
        assert audit.ok, audit.to_json()
    await watch.close()
    assert (await Outbox(servers, "looks").backlog(0)).events == 0
    assert len(await shops[0].store.reservation_ids_of("ann")) == len(shops)
