"""Helper threads persist between runs, sleep meanwhile, serve several callers, and survive forks of the process."""

import os
import platform
import signal
import subprocess
import sys
import threading

import c_code
import numpy as np
import pytest
from conftest import needs_engine

import fastmlp

# Runs the test named by its argument and prints numbers.
PROGRAM = r"""
#define _GNU_SOURCE
#include "threads.h"
#include "helpers.h"
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 40

static int threads_now(void)
{
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks));) n += entry->d_name[0] != '.';
    closedir(tasks);
    return n;
}

/* Each worker adds what its neighbour has left before the barrier; some are late. */
struct sum {
    int left[8], got;
    pid_t helper;
    cpu_set_t cpus;
};

static void add_up(void *context, fm_team *team, int me, int n)
{
    struct sum *sum = context;
    for (int round = 0; round < ROUNDS; round++) {
        sum->left[me] = me + round;
        fm_barrier(team, 0);
        if (me == round % n) sum->got += sum->left[(me + 1) % n];
        fm_barrier(team, 0);
    }
    if (me == 1) sum->helper = gettid(), sched_getaffinity(0, sizeof sum->cpus, &sum->cpus);
}

static int is_right(int n, int started, const struct sum *sum)
{
    int want = 0;
    for (int round = 0; round < ROUNDS; round++) want += (round % started + 1) % started + round;
    return started >= 1 && started <= n && sum->got == want;
}

static int run(int n, struct sum *sum)
{
    memset(sum, 0, sizeof *sum);
    return is_right(n, fm_team_run(n, 0, add_up, sum), sum);
}

/* How many different helpers 100 runs had, of which some come when it sleeps. */
static void stay(void)
{
    struct sum sum;
    int right = 1, changes = 0;
    pid_t before = 0;
    for (int i = 0; i < 100; i++) {
        right &= run(2, &sum);
        changes += sum.helper != before, before = sum.helper;
        if (i % 10 == 0) usleep(3000);
    }
    printf("%d %d %d\n", right, changes, threads_now());
}

static void *call_often(void *right)
{
    struct sum sum;
    for (int i = 0; i < 150; i++)
        if (!run(1 + i % 4, &sum)) atomic_store((atomic_int *)right, 0);
    return 0;
}

static void serve_many(void)
{
    pthread_t callers[4];
    atomic_int right = 1;
    for (int i = 0; i < 4; i++) pthread_create(&callers[i], 0, call_often, &right);
    for (int i = 0; i < 4; i++) pthread_join(callers[i], 0);
    printf("%d %d\n", right, threads_now() <= 1 + 4 * 3);
}

/* Forks while others call: each child must be able to run. */
static void fork_often(void)
{
    struct sum sum;
    pthread_t callers[2];
    atomic_int right = 1;
    int alone, failed = 0, status;
    run(3, &sum);
    const int before = threads_now();
    if (fork() == 0) _exit(threads_now() == 1 && run(3, &sum) ? 0 : 1);
    wait(&status);
    failed += status != 0;
    alone = threads_now();
    for (int i = 0; i < 2; i++) pthread_create(&callers[i], 0, call_often, &right);
    for (int i = 0; i < 30; i++) {
        if (fork() == 0) _exit(run(3, &sum) && run(2, &sum) ? 0 : 1);
        wait(&status);
        failed += status != 0;
    }
    for (int i = 0; i < 2; i++) pthread_join(callers[i], 0);
    printf("%d %d %d %d\n", right, before, alone, failed);
}

/* A caller that moves to another processor, or is kept to one: where its helper may run then. */
static void follow(void)
{
    struct sum sum;
    cpu_set_t all, one;
    int cpus[2], n = 0, off = 0, with = 0;
    sched_getaffinity(0, sizeof all, &all);
    for (int c = 0; c < CPU_SETSIZE && n < 2; c++)
        if (CPU_ISSET(c, &all)) cpus[n++] = c;
    for (int i = 0; i < 20; i++) {
        CPU_ZERO(&one);
        CPU_SET(cpus[i % 2], &one);
        sched_setaffinity(0, sizeof one, &one); /* moves it there ... */
        sched_setaffinity(0, sizeof all, &all); /* ... and it stays, most likely */
        const int here = sched_getcpu();
        run(2, &sum);
        off += sched_getcpu() != here || !CPU_ISSET(here, &sum.cpus);
        sched_setaffinity(0, sizeof one, &one);
        run(2, &sum);
        with += CPU_EQUAL(&one, &sum.cpus);
        sched_setaffinity(0, sizeof all, &all);
    }
    printf("%d %d\n", off, with);
}

static atomic_int done;

static void note(void *by) { atomic_fetch_add(&done, *(int *)by); }

/* Calls that are taken back at once, or a moment later, from helpers asleep and awake. */
static void withdraw_often(void)
{
    int withdrawn = 0, one = 1;
    for (int i = 0; i < 20000; i++) {
        fm_helper *helper = fm_helper_take(2);
        fm_helper_call(helper, note, &one);
        for (volatile int k = 0; k < i % 400; k++) {
        }
        if (fm_helper_withdraw(helper)) withdrawn++;
        else fm_helper_release(helper);
        if (i % 100 == 0) usleep(400);
    }
    printf("%d %d %d %d\n", withdrawn > 0, done > 0, withdrawn + done, threads_now());
}

/* Teams that nobody waits for. */
static void be_late(void)
{
    struct sum sum;
    int right = 1, most = 0;
    fm_team_insist(0);
    for (int i = 0; i < 400; i++) {
        memset(&sum, 0, sizeof sum);
        const int n = fm_team_run(4, i % 3 ? 2000 : 0, add_up, &sum);
        right &= is_right(4, n, &sum), most = n > most ? n : most;
        if (i % 10 == 0) usleep(400);
    }
    printf("%d %d\n", right, most);
}

#define PIECES 1000
static atomic_int times[PIECES];

static void take_pieces(void *context, fm_team *team, int me, int n)
{
    (void)context, (void)me, (void)n;
    for (int64_t begin, end; (begin = fm_take(team, PIECES, 10, &end)) < end;)
        for (int64_t i = begin; i < end; i++) atomic_fetch_add(&times[i], 1);
}

/* Work that is done whoever comes. */
static void come_whenever(void)
{
    int right = 1, runs = 0;
    for (int insist = 0; insist < 2; insist++) {
        fm_team_insist(insist);
        for (int i = 0; i < 400; i++, runs++) {
            fm_team_run(1 + i % 4, FM_WHENEVER, take_pieces, 0);
            if (i % 10 == 0) usleep(400);
        }
    }
    for (int i = 0; i < PIECES; i++) right &= times[i] == runs;
    printf("%d\n", right);
}

int main(int argc, char **argv)
{
    (void)argc;
    fm_team_insist(1);
    if (!strcmp(argv[1], "withdraw often")) withdraw_often();
    if (!strcmp(argv[1], "be late")) be_late();
    if (!strcmp(argv[1], "come whenever")) come_whenever();
    if (!strcmp(argv[1], "stay")) stay();
    if (!strcmp(argv[1], "serve many")) serve_many();
    if (!strcmp(argv[1], "fork often")) fork_often();
    if (!strcmp(argv[1], "follow")) follow();
    return 0;
}
"""


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("counts threads by Linux's /proc")
    program = c_code.program(tmp_path_factory.mktemp("helpers"), PROGRAM, "threads", "helpers")

    def run(test):
        done = subprocess.run([program, test], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return [int(number) for number in done.stdout.split()]

    return run


def test_a_helper_persists_between_runs_and_wakes(numbers):
    right, changes, threads = numbers("stay")
    assert right and (changes, threads) == (1, 2)


def test_helpers_serve_several_callers_at_once(numbers):
    assert numbers("serve many") == [1, 1]


def test_a_withdrawn_call_does_not_run_and_others_do(numbers):
    assert numbers("withdraw often") == [1, 1, 20000, 2]


def test_a_team_runs_without_late_workers(numbers):
    right, most = numbers("be late")
    assert right and 1 <= most <= 4


def test_each_piece_is_done_once_by_any_team(numbers):
    assert numbers("come whenever") == [1]


def test_a_fork_ends_spare_helpers_and_a_child_starts_its_own(numbers):
    right, before, alone, failed = numbers("fork often")
    assert right and not failed
    assert (before, alone) == (3, 1)


def test_a_helper_avoids_the_current_processor_of_its_caller(numbers):
    if platform.libc_ver()[0] != "glibc" or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs glibc, with which a thread can choose its processors, and 2 of them")
    assert numbers("follow") == [20, 20]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 counts the test's own threads
def test_a_forked_process_trains_and_predicts_with_the_same_bits(rng):
    fastmlp.set_num_threads(2)
    X, y = rng.standard_normal((300, 200)), rng.integers(0, 10, 300)

    def trained():
        net = fastmlp.MLP([200, 300, 10], seed=1)
        net.fit(X, y, epochs=2, batch_size=100)
        return net.parameters.tobytes() + net.predict_proba(X).tobytes()

    here, (reading, writing) = trained(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"same" if trained() == here else b"other")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"same"
    assert os.waitpid(child, 0)[1] == 0
    assert trained() == here


@needs_engine  # NumPy's BLAS may wait for ever if the process forks while another thread uses it
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_during_training_can_train(rng):
    trainer = fastmlp.Trainer(fastmlp.MLP([200, 256, 256, 2], backend="engine"), fastmlp.SGD(1e-4))
    X, y = rng.random((2048, 200), np.float32), rng.integers(0, 2, 2048)
    trainer.step(X, y)
    began, over = threading.Event(), threading.Event()

    def train():
        while not over.is_set():
            began.set()
            trainer.step(X, y)

    worker = threading.Thread(target=train)
    worker.start()
    began.wait()
    try:
        for _ in range(4):  # at least one of them forks during a run
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that waits for a thread that does not exist in it
                trainer.step(X, y)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        worker.join()
