"""The load generator gives each worker of a verifier its share of a processor, and takes it back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.bench.fleet.processors import children, divided, family, keep_to, waited
from tests.bench.fleet.shares import Hierarchy, NoShareError, found, limited, quota, refused
from tests.bench.workers import result

V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
V1_JOINT = "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V1_OTHER = "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
DISK = "23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"

# A process that starts another, tells of it, and another one whenever a line comes; all of them are busy.
BUSY = """
import subprocess, sys
def another():
    print(subprocess.Popen([sys.executable, "-c", "while True: pass"]).pid, flush=True)
another()
for line in sys.stdin:
    another()
"""


def paths(mounts, own):
    return [(str(place.folder), place.unified) for place in found(mounts, own)]


@pytest.mark.parametrize(
    ("mounts", "own", "expected"),
    [
        (DISK + V1_OTHER + V1, "3:cpuset:/\n1:cpu:/\n0::/\n", [("/sys/fs/cgroup/cpu", False)]),
        (V1_JOINT, "4:cpu,cpuacct:/user.slice\n", [("/sys/fs/cgroup/cpu,cpuacct/user.slice", False)]),
        (
            V1.replace("0:29 / ", "0:29 /docker/1f "),
            "1:cpu:/docker/1f/a\n",
            [("/sys/fs/cgroup/cpu/a", False)],
        ),
        (V1.replace("0:29 / ", "0:29 /docker/1f "), "1:cpu:/elsewhere\n", [("/sys/fs/cgroup/cpu", False)]),
        (V1.replace("/cpu rw", r"/c\040pu rw"), "1:cpu:/\n", [("/sys/fs/cgroup/c pu", False)]),
        (
            DISK + V2,
            "0::/user.slice/session-1.scope\n",
            [
                ("/sys/fs/cgroup/user.slice/session-1.scope", True),
                ("/sys/fs/cgroup/user.slice", True),
                ("/sys/fs/cgroup", True),
            ],
        ),
        (V2 + V1, "1:cpu:/\n0::/\n", [("/sys/fs/cgroup/cpu", False), ("/sys/fs/cgroup", True)]),
        (DISK + V1_OTHER, "1:cpuacct:/\n", []),
    ],
)
def test_the_places_for_groups_are_those_of_the_mounts(mounts, own, expected):
    assert paths(mounts, own) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.25, (2_500, 10_000)), (1.5, (15_000, 10_000)), (0.05, (1_000, 20_000)), (0.001, (1_000, 1_000_000))],
)
def test_a_period_is_as_short_as_the_least_quota_allows(share, expected):
    assert quota(share) == expected


@pytest.mark.parametrize("share", [0.0, -0.5, 0.0005])
def test_a_share_that_cannot_be_given_is_refused(share):
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        quota(share)


def test_where_no_group_can_be_made_it_is_said_what_is_needed(tmp_path):
    nowhere = [Hierarchy(tmp_path / "gone", unified=False), Hierarchy(tmp_path, unified=True)]
    for places in (nowhere, []):
        with (
            pytest.raises(NoShareError, match="root, and the cgroup controller `cpu`"),
            limited([list], 0.5, places),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def busy():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        started = [int(process.stdout.readline())]
        try:
            yield process, started
        finally:
            for pid in family(process.pid)[::-1]:
                subprocess.run(["kill", "-9", str(pid)], check=False)


def another(process, started):
    process.stdin.write("\n")
    process.stdin.flush()
    started.append(int(process.stdout.readline()))


@pytest.fixture
def groups():
    if (why := refused(0.5)) is not None:
        pytest.skip(f"SHARES OF A PROCESSOR NOT TESTED: {why}")


def groups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def stood_still(group):
    fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(fields["nr_throttled"])


@pytest.mark.usefixtures("groups")
def test_a_family_has_its_share_until_the_end_and_those_it_starts_have_it_too(busy):
    process, started = busy
    before = groups_of(process.pid)
    with limited([partial(family, process.pid), list], 0.1) as made:
        another(process, started)
        for pid in (process.pid, *started):
            assert f"/{made[0].name}\n" in groups_of(pid)
        deadline = time.monotonic() + 20
        while not stood_still(made[0]):
            assert time.monotonic() < deadline, "never held back"
            time.sleep(0.02)
        assert not stood_still(made[1])
    assert [groups_of(pid) for pid in (process.pid, *started)] == [before] * 3
    assert not any(group.exists() for group in made)


@pytest.mark.usefixtures("groups")
def test_groups_are_removed_after_a_failure(busy):
    process, _ = busy
    before, made = groups_of(process.pid), []

    def fail():
        with limited([partial(family, process.pid)], 0.5) as now:
            made.extend(now)
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert groups_of(process.pid) == before
    assert [group.exists() for group in made] == [False]


def test_a_family_is_all_that_was_started_below(busy):
    process, started = busy
    another(process, started)
    assert set(children(process.pid)) == set(started)
    assert set(family(process.pid)) == {process.pid, *started}


def test_who_stands_in_line_for_a_processor_is_seen_to(busy):
    process, started = busy
    first = min(os.sched_getaffinity(0))
    another(process, started)
    keep_to({first}, started)  # two that never rest, on one
    before, deadline = waited(started), time.monotonic() + 20
    while waited(started) - before < 0.2:
        assert time.monotonic() < deadline, "neither ever waited"
        time.sleep(0.02)
    assert waited([process.pid]) < waited(started)  # it reads a pipe


def test_each_worker_has_a_processor_and_somebody_the_rest():
    assert divided([5, 2, 3], 2) == ({2, 3}, {5})
    with pytest.raises(ValueError, match="3 processors, not 2"):
        divided([0, 1], 2)


def test_all_threads_of_a_process_are_kept_to_a_processor(busy):
    process, started = busy
    with subprocess.Popen(
        [sys.executable, "-c", "import threading; t = threading.Event(); threading.Thread(target=t.wait).start(); print(flush=True); t.wait()"],
        stdout=subprocess.PIPE,
    ) as threaded:  # fmt: skip
        try:
            threaded.stdout.readline()
            first = min(os.sched_getaffinity(0))
            keep_to({first}, [process.pid, *started, threaded.pid])
            tasks = [*Path(f"/proc/{threaded.pid}/task").iterdir(), Path(f"/proc/{started[0]}")]
            assert len(tasks) == 3
            for task in tasks:
                assert f"Cpus_allowed_list:\t{first}\n" in (task / "status").read_text()
        finally:
            threaded.kill()


def ran(workers, per_second, **busy):
    return {"workers": workers, "per_second": per_second, "busy": busy}


def test_the_bench_tells_what_two_workers_do_and_whether_anything_was_to_spare():
    idle = {"guests": 0.2, "verifier": 0.6, "database": 0.1}
    row = result([ran(1, 90, **idle), ran(2, 210, **idle), ran(2, 190, **idle), ran(1, 110, **idle)], 2)
    assert (row.value, row.ratio, row.ok) == (200, 2.0, True)
    assert row.baseline == "one 100/s; of 2 processors guests 0.20, verifier 0.60, database 0.10"
    starved = result([ran(1, 100, **idle), ran(2, 150, guests=0.95, verifier=0.6, database=0.4)], 2)
    assert not starved.ok
    assert starved.baseline.endswith("guests 0.95, verifier 0.60, database 0.40: NONE TO SPARE")
