"""What may happen to Redis servers that stand in for each other, or share the work."""

from __future__ import annotations

import asyncio
import signal
from typing import cast

from loadtests.faults.fault import Moment, fault
from loadtests.faults.groups import Guarded, Nodes, call, until
from loadtests.faults.repair import reconcile
from loadtests.faults.servers import RedisServer
from loadtests.faults.shoppers import Load
from loadtests.faults.stack import Setting, Stack
from reservation.cluster import SLOTS

SENTINELS = Setting(store="sentinels")
REPLICATED = Setting(store="sentinels", replicas=1)
CLUSTER = Setting(store="cluster")
LAG_SECONDS = 0.7
DOWN_SECONDS = 3.0
PROVED_SECONDS = 2.0
CALM = Load(rate=60.0)
"""While there is no master for ten seconds and more, shoppers gather, and all of them ask again and again."""
UNREPLICATED = "what the replica did not have and had not reached PostgreSQL"


@fault(setting=SENTINELS, loses=UNREPLICATED, admits_seconds=LAG_SECONDS + 1.0, load=CALM)
async def sentinel_failover(stack: Stack, moment: Moment) -> None:
    """The master dies while its replica is 0.7 s behind, and the sentinels promote that. The operator runs
    `reconcile --repair`."""
    master = await _fail_over(stack, moment)
    await reconcile(stack, moment)
    await _come_back(stack, master)


@fault(setting=REPLICATED, load=CALM)
async def sentinel_failover_replicated(stack: Stack, moment: Moment) -> None:
    """The same, but that nothing is acknowledged that the replica does not have. So nothing is sold before
    the new master has a replica itself."""
    await _come_back(stack, await _fail_over(stack, moment))
    await reconcile(stack, moment)


async def _fail_over(stack: Stack, moment: Moment) -> RedisServer:
    """The master that was."""
    group = cast(Guarded, stack.group)
    master, replica = await asyncio.to_thread(lambda: (group.master(), group.replica()))
    await asyncio.to_thread(call, replica.port, "REPLICAOF", "127.0.0.1", 1)
    await asyncio.sleep(LAG_SECONDS)
    moment.begins()
    await master.kill()
    moment.gone()
    await until(lambda: group.master() is replica, "the replica is master")
    moment.over()
    moment.seen.append("the replica was promoted")
    return master


async def _come_back(stack: Stack, master: RedisServer) -> None:
    await master.start()
    await until(cast(Guarded, stack.group).whole, "the old master follows the new one")


@fault(
    setting=SENTINELS,
    loses="what the old master acknowledged while there were two, and had not reached PostgreSQL",
    admits_seconds=1.0,
    load=CALM,
)
async def split_brain(stack: Stack, moment: Moment) -> None:
    """The master hangs until its replica is promoted, and goes on as a second master while no sentinel is
    there to tell it."""
    group = cast(Guarded, stack.group)
    master, replica = await asyncio.to_thread(lambda: (group.master(), group.replica()))
    moment.begins()
    master.send(signal.SIGSTOP)
    await until(lambda: group.master() is replica, "the replica is master")
    # Killed, and not stopped: a sentinel that finds that it stood still does nothing for 30 s.
    await asyncio.gather(*(sentinel.kill() for sentinel in group.sentinels))
    master.send(signal.SIGCONT)
    await asyncio.sleep(DOWN_SECONDS)
    roles = [(await asyncio.to_thread(call, one.port, "ROLE"))[0] for one in group.members]
    moment.expect(roles == ["master", "master"], "there were two masters")
    await asyncio.gather(*(sentinel.start() for sentinel in group.sentinels))
    await until(group.whole, "the old master follows the new one")
    moment.gone()
    moment.over()
    # Who was acknowledged something by the old master comes to the new one, and says so.
    await asyncio.sleep(PROVED_SECONDS)
    await reconcile(stack, moment)


@fault(setting=REPLICATED, load=CALM)
async def split_brain_replicated(stack: Stack, moment: Moment) -> None:
    """The same, but that nothing is acknowledged that the replica does not have."""
    await split_brain(stack, moment)


@fault(setting=CLUSTER)
async def cluster_node_lost(stack: Stack, moment: Moment) -> None:
    """Each node of the cluster is killed in turn, and comes back after 3 s."""
    for node in stack.group.members:
        await node.kill()
        await asyncio.sleep(DOWN_SECONDS)
        await node.start()


@fault(setting=CLUSTER)
async def cluster_resharded(stack: Stack, moment: Moment) -> None:
    """The slots of all campaigns move to other nodes, a few keys at a time, while they are sold from."""
    group = cast(Nodes, stack.group)
    moved = 0
    for slot in dict.fromkeys(SLOTS):
        source = await asyncio.to_thread(group.owner, slot)
        target = moment.rng.choice([one for one in group.members if one is not source])
        moved += await asyncio.to_thread(group.move, slot, source, target)
    moment.expect(moved > 0, f"{moved} keys were moved")
