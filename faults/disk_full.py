"""The data directory's file system fills up, and later has space again; the server runs throughout."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.arena import NUMBERS, Arena, arena
from faults.checks import Violation
from faults.report import Outcome
from faults.server import ServerFailed

TMPFS_BYTES = 64 << 20
LEFT_BYTES = 256 << 10  # free after the ballast
SIZE = 30_000
MESSAGES = 80  # of SIZE: more than there is room for, less than a mailbox takes
TALK = 150
ROSTER = {"ann": (NUMBERS[0], 1), "bob": (NUMBERS[1], 1), "cid": (NUMBERS[2], 1)}


class MountNotPermitted(Exception):
    """This process may not mount a file system."""


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """Raises MountNotPermitted."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=0700", "wa-faults", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountNotPermitted("there is no mount command") from None
    if done.returncode:
        raise MountNotPermitted(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def fill(ballast: Path, left_bytes: int = 0) -> None:
    """Takes all the space but `left_bytes`."""
    fd = os.open(ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        room = free_bytes(ballast.parent) - left_bytes
        if room > 0:
            os.posix_fallocate(fd, 0, os.fstat(fd).st_size + room)
    finally:
        os.close(fd)


async def disk_full(seed: int, parent: Path | None) -> Outcome:
    outcome = Outcome("disk full")
    async with arena(seed, 2, parent) as ground:
        try:
            ground.stack.enter_context(small_disk(ground.server.data_dir))
        except MountNotPermitted as error:
            outcome.skipped = f"it must mount a small tmpfs, and may not here: {error}"
            return outcome
        await _play(ground, outcome)
    return outcome


async def _play(ground: Arena, outcome: Outcome) -> None:
    await ground.open(ROSTER)
    server = ground.server
    ballast = server.data_dir / "ballast"
    ann, bob, cid = (ground.people.persons[name] for name in ROSTER)
    ann.do("burst", to=NUMBERS[1], n=2, size=100)  # sessions are there before the disk is full
    await ground.until(lambda: ground.answered(ann) == 2, "the first messages did not arrive")
    workers = server.worker_pids()
    await ground.people.stop(bob)
    accepted = await _until_refused(ground, ballast)
    # Full to the last byte: connected devices chat on without the disk.
    fill(ballast)
    cid.do("burst", to=NUMBERS[0], n=TALK, size=100)
    await ground.until(lambda: not ground.unanswered(cid), "two who are connected could not talk on the full disk")
    # Killed workers come back now, and every accepted message is readable.
    server.kill_workers(workers)
    await ground.until(lambda: ground.serves(workers), "the killed workers did not come back on the full disk")
    workers = server.worker_pids()
    ground.people.start(bob)
    await ground.until(lambda: ground.shown(bob) >= accepted, "what was accepted before the disk was full did not come")
    await ground.people.stop(bob)
    # Full again, then space: no restart is needed.
    await _until_refused(ground, ballast)
    # An operator's restart on a full disk does no harm, also without room for what the server can do without.
    await server.stop()
    for ring in (server.data_dir / "run").glob("*.ring"):
        ring.unlink()
    fill(ballast)
    if not await server.start():
        raise ServerFailed(f"it did not start on a full disk: {server.log_end()}")
    workers = server.worker_pids()
    before = ground.refused()
    await ground.until(lambda: ground.refused() > before, "after a restart the full disk was not noticed")
    ballast.unlink()
    await ground.until(lambda: not ground.unanswered(ann), "nothing was accepted again after there was space")
    refusals = ground.refused()
    ground.people.start(bob)
    recorded, violations = await ground.account()
    if workers != ground.workers_at_end:
        violations.append(Violation("disk full", f"workers {workers} became {ground.workers_at_end}"))
    outcome.violations = violations
    outcome.facts = {
        "accepted before it was full": accepted,
        "refused for now": refusals,
        "messages": sum(len(device.sent) for device in recorded.devices.values()),
        "shown": sum(len(device.shown) for device in recorded.devices.values()),
    }
    ground.conclude(outcome, recorded)


async def _until_refused(ground: Arena, ballast: Path) -> int:
    """Fills the disk, the rest of it with messages for bob.  -> how many of ann's are answered by then."""
    ann = ground.people.persons["ann"]
    before = ground.refused()
    fill(ballast, LEFT_BYTES)
    ann.do("burst", to=NUMBERS[1], n=MESSAGES, size=SIZE)
    await ground.until(lambda: ground.refused() > before, "a full disk was not noticed")
    return ground.answered(ann)
