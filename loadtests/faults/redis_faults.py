"""What may happen to Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError

from loadtests.faults import disk
from loadtests.faults.fault import Missed, Moment, fault
from loadtests.faults.repair import reconcile
from loadtests.faults.stack import Setting, Stack

ALONE = Setting(alone=True)
EVERYSEC = Setting(fsync="everysec")
SMALL_DISK = Setting(disk_mb=24)
SMALL_DISK_EVERYSEC = Setting(fsync="everysec", disk_mb=24)
DOWN_SECONDS = 0.5
PAGE_BYTES = 4_096
"""What is less may lie within a value, where Redis cannot see it: its log has no checksums."""
FSYNC_SECONDS = 1.0
"""How long ago the last fsync may be under `everysec`, on a disk that keeps up."""
BACKLOG_SECONDS = 2.0
"""How long what is acknowledged may take to the book on a busy machine; what is lost is not older."""


_FULL = ("No space left", "Short write")
"""What Redis says then."""


@fault(quick=True)
async def redis_killed_always(stack: Stack, moment: Moment) -> None:
    """Redis gets SIGKILL under `appendfsync always`, and starts again on its log."""
    await stack.redis.kill()
    await asyncio.sleep(DOWN_SECONDS)
    await stack.redis.start()


@fault(setting=EVERYSEC)
async def redis_killed_everysec(stack: Stack, moment: Moment) -> None:
    """Redis gets SIGKILL under `appendfsync everysec`, and starts again: the system has what it wrote."""
    await stack.redis.kill()
    await asyncio.sleep(DOWN_SECONDS)
    await stack.redis.start()


@fault(
    setting=EVERYSEC,
    loses="what was written in the last second and had not reached PostgreSQL",
    admits_seconds=FSYNC_SECONDS + 0.5,
)
async def redis_power_cut_everysec(stack: Stack, moment: Moment) -> None:
    """Redis' machine loses power under `everysec`: its log is cut back to where it was a second before.
    The operator runs `reconcile --repair`."""
    log = stack.redis.log_file
    await asyncio.sleep(FSYNC_SECONDS)
    synced = log.stat().st_size
    await asyncio.sleep(FSYNC_SECONDS)
    moment.begins()
    await stack.redis.kill()
    moment.gone()
    size = log.stat().st_size
    moment.expect(size > synced, f"{size - synced} of {size} bytes of the log were not on the disk")
    os.truncate(log, synced)
    await asyncio.sleep(DOWN_SECONDS)
    await stack.redis.start()
    moment.over()
    await reconcile(stack, moment)


@fault(
    setting=ALONE,
    loses="what was in the damaged part of the log and had not reached PostgreSQL",
    admits_seconds=BACKLOG_SECONDS,
)
async def redis_log_corrupted(stack: Stack, moment: Moment) -> None:
    """A page in the middle of Redis' log is overwritten, and Redis does not start. The operator has
    `redis-check-aof` cut it there, and runs `reconcile --repair`."""
    await asyncio.sleep(1.0)
    moment.begins()
    await stack.redis.kill()
    moment.gone()
    log = stack.redis.log_file
    size = log.stat().st_size
    at = size // 2 + moment.rng.randrange(size // 10)
    with log.open("r+b") as damaged:
        damaged.seek(at)
        damaged.write(moment.rng.randbytes(PAGE_BYTES))
    stack.redis.begin()
    status = await stack.redis.ends()
    moment.expect(status == 1, f"Redis did not start on the damaged log (it ended with {status})")
    await asyncio.to_thread(_cut_at_the_damage, log)
    moment.repairs.append(f"redis-check-aof --fix kept {log.stat().st_size} of {size} bytes")
    await stack.redis.start()
    moment.over()
    await reconcile(stack, moment)


def _cut_at_the_damage(log: Path) -> None:
    """Raises Missed."""
    manifest = next(log.parent.glob("*.manifest"))
    done = subprocess.run(
        ["redis-check-aof", "--fix", str(manifest)],  # noqa: S607  (where Redis is, it is)
        input="y\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise Missed(f"redis-check-aof: {done.stdout[-300:]}{done.stderr[-300:]}")


@fault(
    setting=ALONE,
    loses="what had not reached PostgreSQL, and who stood in line for a waitlist",
    admits_seconds=BACKLOG_SECONDS,
)
async def redis_emptied(stack: Stack, moment: Moment) -> None:
    """Redis comes back with nothing at all. The operator runs `reconcile --repair` and resumes what that
    has paused."""
    await asyncio.sleep(1.0)
    moment.begins()
    await stack.redis.kill()
    moment.gone()
    for file in (stack.redis.data / "appendonlydir").iterdir():
        file.unlink()
    await stack.redis.start()
    moment.over()
    await reconcile(stack, moment)


@fault(setting=SMALL_DISK)
async def redis_disk_full_always(stack: Stack, moment: Moment) -> None:
    """Redis' disk is full under `always`: it gives up, and does not start again until there is room."""
    await _fill(stack, moment)
    status = await stack.redis.ends(5.0)
    moment.seen.append(f"Redis ended with {status}")
    disk.empty(stack.redis.data.parent)
    await stack.redis.start()


@fault(setting=SMALL_DISK_EVERYSEC)
async def redis_disk_full_everysec(stack: Stack, moment: Moment) -> None:
    """Redis' disk is full under `everysec`: it refuses every write until there is room again."""
    await _fill(stack, moment)
    await asyncio.sleep(3.0)
    disk.empty(stack.redis.data.parent)
    await _until_writable(stack)


async def _fill(stack: Stack, moment: Moment) -> None:
    if not disk.may_mount():
        raise Missed("a small disk is root's to make")
    await asyncio.to_thread(disk.fill, stack.redis.data.parent, leaving_bytes=64 * 1024)
    until = time.monotonic() + 10.0
    while not any(word in stack.redis.said() for word in _FULL):
        if time.monotonic() > until:
            disk.empty(stack.redis.data.parent)
            raise Missed("the disk was not full in time")
        await asyncio.sleep(0.05)
    moment.seen.append("the disk was full")


async def _until_writable(stack: Stack) -> None:
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        with suppress(RedisError):
            await stack.store.set("faults:writable", 1)
            await stack.store.delete("faults:writable")
            return
        await asyncio.sleep(0.05)


@fault()
async def redis_out_of_memory(stack: Stack, moment: Moment) -> None:
    """Redis is at its `maxmemory` for 2 s: it answers, and takes nothing new."""
    used = (await stack.store.info("memory"))["used_memory"]
    await stack.store.config_set("maxmemory", max(1, used // 2))
    await asyncio.sleep(2.0)
    refused = (await stack.store.info("errorstats")).get("errorstat_OOM", {"count": 0})["count"]
    await stack.store.config_set("maxmemory", 0)
    moment.expect(int(refused) > 0, f"{refused} writes were refused for want of memory")


@fault()
async def redis_scripts_flushed(stack: Stack, moment: Moment) -> None:
    """Redis forgets its scripts, again and again."""
    for _ in range(15):
        await stack.store.script_flush()
        await asyncio.sleep(0.1)


@fault()
async def redis_busy(stack: Stack, moment: Moment) -> None:
    """Redis stands still for 2 s, and then has a script that does not end, which is killed after 2 s."""
    await stack.store.config_set("busy-reply-threshold", 100)
    port = stack.redis.port
    await _inline(port, b"DEBUG SLEEP 2")
    endless = asyncio.create_task(_inline(port, b'EVAL "while true do end" 0'))
    await asyncio.sleep(2.0)
    killed = await _inline(port, b"SCRIPT KILL")
    moment.expect(killed.startswith(b"+OK"), "the script was killed")
    await endless
    await stack.store.config_set("busy-reply-threshold", 5_000)


async def _inline(port: int, command: bytes) -> bytes:
    """What Redis answers, on a connection of its own: a client of redis-py says hello first, and a Redis that
    is busy does not answer that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(command + b"\r\n")
        return await reader.readline()
    finally:
        writer.close()


@fault()
async def redis_stopped(stack: Stack, moment: Moment) -> None:
    """Redis gets SIGSTOP for 8 s, longer than a gateway waits for it, and goes on with what lies there."""
    stack.redis.send(signal.SIGSTOP)
    await asyncio.sleep(8.0)
    stack.redis.send(signal.SIGCONT)
