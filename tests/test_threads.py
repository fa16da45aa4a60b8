"""Where the workers of a team start: not on their caller's processor, if there are enough; and how far apart they are.

Also how many there are by default.
"""

import os
import platform
import subprocess
import sys

import c_code
import pytest

import fastmlp

# Prints how many workers, in 50 runs, were allowed on all processors, how many on all but one, and whether the caller
# may still run on all; and how often workers disagreed on how far apart they are.
PROGRAM = r"""
#define _GNU_SOURCE
#include "threads.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

static cpu_set_t before;
static int all, others; /* of the workers on these processors */
static int disagree;    /* how often two workers had not measured the same */

static void work(void *context, fm_team *team, int me, int n)
{
    cpu_set_t mine, both;
    (void)context, (void)n;
    sched_getaffinity(0, sizeof mine, &mine);
    CPU_AND(&both, &mine, &before);
    fm_barrier(team, 0); /* one after the other would do, but they are to run at once */
    const int counted = CPU_EQUAL(&both, &mine) ? CPU_COUNT(&mine) : -1;
    int *const count = counted == CPU_COUNT(&before) ? &all : &others;
    if (me && counted >= CPU_COUNT(&before) - 1) __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    static int far[2];
    for (int i = 0; i < 2; i++) {
        const int mine = fm_far_apart(team, me);
        if (!me) far[i] = mine;
        fm_barrier(team, 0);
        if (mine != far[i] || mine >> 1) __atomic_fetch_add(&disagree, 1, __ATOMIC_RELAXED);
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    fm_team_insist(1);
    const int workers = atoi(argv[1]), cpus = atoi(argv[2]);
    cpu_set_t now;
    sched_getaffinity(0, sizeof before, &before);
    for (int c = 0, kept = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &before) && ++kept > cpus) CPU_CLR(c, &before);
    sched_setaffinity(0, sizeof before, &before);
    for (int i = 0; i < 50; i++) fm_team_run(workers, 0, work, 0);
    sched_getaffinity(0, sizeof now, &now);
    printf("%d %d %d %d\n", all, others, CPU_EQUAL(&now, &before), disagree);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("only Linux with glibc lets a thread start elsewhere")
    return c_code.program(tmp_path_factory.mktemp("threads"), PROGRAM, "threads", "helpers")


@pytest.mark.parametrize(
    ("workers", "cpus", "elsewhere"),
    [(2, 2, True), (2, 1, False), (3, 2, False)],
    ids=["a processor for each", "one processor", "more workers than processors"],
)
def test_workers_avoid_the_callers_processor_if_there_are_enough(program, workers, cpus, elsewhere):
    if len(os.sched_getaffinity(0)) < cpus:
        pytest.skip(f"needs {cpus} processors")
    done = subprocess.run([program, str(workers), str(cpus)], capture_output=True, text=True, timeout=60)
    everywhere, others, same, disagree = map(int, done.stdout.split())
    started = 50 * (workers - 1)
    assert (everywhere, others) == ((0, started) if elsewhere else (started, 0))
    assert same, "the caller may run where it could before"
    assert not disagree


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a system that knows affinity")
def test_the_default_counts_the_processors_again(monkeypatch):
    for name in ("FASTMLP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = fastmlp.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        assert fastmlp.get_num_threads() == before
        fastmlp.set_num_threads(None)
        assert fastmlp.get_num_threads() == 1
    fastmlp.set_num_threads(None)
    assert fastmlp.get_num_threads() == before
