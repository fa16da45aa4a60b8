"""Two threads on one row: the same bits, whether the partner is present, starts, ends, is late or lost in a fork."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import c_code
import numpy as np
import pytest

import fastmlp
from fastmlp import MLP
from fastmlp.plans import prediction_plan, shared_row_plan
from fastmlp.runtime import _engine, row_predictor

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
pytestmark = [
    pytest.mark.skipif(_engine is None, reason="the engine is not built"),
    pytest.mark.skipif(CPUS < 2, reason="a partner needs a second processor"),
]
NETWORKS = {
    "one large layer": ([784, 128, 10], {}),
    "two, one behind the other": ([300, 300, 200, 3], {"activation": "gelu"}),
    "a small one in between": ([500, 100, 20, 2000, 4], {"activation": "tanh"}),
    "the last": ([10, 40, 2000], {"loss": "mse"}),
    "all": ([333, 333, 333], {"loss": "binary_cross_entropy", "activation": "silu"}),
}


@pytest.fixture(autouse=True)
def two_threads():
    fastmlp.set_num_threads(2)


def rows_of(net, n=64, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, net.sizes[0])).astype(net.dtype)
    return X, [X[i : i + 1].copy() for i in range(n)]


def together(net, rows, want=200, seconds=60):
    """Predict the rows again and again until two threads have computed `want` of them; all predictions."""
    for _ in range(2):
        net.predict(rows[0])
    if net._row_predictor is None:
        pytest.skip("the environment sends rows another way")
    net._row_predictor.insist()
    before, end, outputs = net._row_predictor.partner_rows, time.monotonic() + seconds, []
    while net._row_predictor.partner_rows < before + want:
        outputs += [net._outputs(row) for row in rows]
        assert time.monotonic() < end, f"only {net._row_predictor.partner_rows - before} rows by two in {seconds} s"
    return outputs


@pytest.mark.targets
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_by_two_have_the_bits_of_a_batch(name, dtype):
    sizes, settings = NETWORKS[name]
    net = MLP(sizes, dtype=dtype, seed=3, **settings)
    X, rows = rows_of(net)
    batch = net._outputs(X)
    for i, out in enumerate(together(net, rows)):
        assert out.tobytes() == batch[i % 64].tobytes()


def test_new_weights_are_seen_by_both():
    net = MLP([784, 128, 10], seed=0)
    X, rows = rows_of(net)
    for _ in range(5):
        together(net, rows, want=50)
        net.parameters[:] *= np.float32(1.01)
        assert np.concatenate([net._outputs(row) for row in rows]).tobytes() == net._outputs(X).tobytes()


def test_standardized_inputs(rng):
    net = MLP([400, 200, 5], seed=0, standardize="mean")
    X = rng.standard_normal((64, 400)).astype(np.float32) * 7 + 3
    net.fit(X, rng.integers(0, 5, 64), epochs=1)
    outputs = together(net, [X[i : i + 1].copy() for i in range(64)])
    assert np.concatenate(outputs[-64:]).tobytes() == net._outputs(X).tobytes()


def test_a_value_that_is_not_finite_is_found_by_two_as_by_one():
    net = MLP([784, 128, 10], seed=0)
    _, rows = rows_of(net)
    want = [net._outputs(row) for row in rows]
    together(net, rows, want=100)
    for column, value in ((0, np.nan), (783, np.inf)):
        bad = rows[5].copy()
        bad[0, column] = value
        with pytest.raises(ValueError, match="X must be finite"):
            net._outputs(bad)
        assert all(net._outputs(row).tobytes() == w.tobytes() for row, w in zip(rows, want, strict=True))


def test_the_partner_ends_with_one_thread():
    net = MLP([784, 128, 10], seed=0)
    _, rows = rows_of(net)
    for _ in range(20):  # in some of which it has not gone anyway
        together(net, rows, want=20)
        fastmlp.set_num_threads(1)
        alone = net._row_predictor.partner_rows
        for row in rows:
            net._outputs(row)
        assert net._row_predictor.partner_rows == alone
        fastmlp.set_num_threads(2)


def test_one_partner_serves_several_networks_in_turn():
    nets = [MLP([784, 128, 10], seed=seed) for seed in range(3)]
    _, rows = rows_of(nets[0])
    want = [np.concatenate([net._outputs(row) for row in rows]).tobytes() for net in nets]
    for net in nets:
        together(net, rows, want=100)
    for _ in range(20):
        for row in rows:
            for net in nets:
                net._outputs(row)
    assert [np.concatenate([net._outputs(row) for row in rows]).tobytes() for net in nets] == want


def test_networks_are_freed_while_their_partner_runs():
    for seed in range(8):
        net = MLP([784, 128, 10], seed=seed)
        X, rows = rows_of(net)
        batch, gone = net._outputs(X), weakref.ref(net)
        last = together(net, rows, want=20)[-64:]
        del net
        gc.collect()
        assert gone() is None
        assert np.concatenate(last).tobytes() == batch.tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 counts the test's own threads
def test_a_forked_process_starts_its_own_partner():
    net = MLP([784, 128, 10], seed=0)
    _, rows = rows_of(net)
    want, go_on = [net._outputs(row).tobytes() for row in rows], threading.Event()

    def predict():  # so that the partner is there while this process forks
        while go_on.is_set():
            net._outputs(rows[0])

    def in_child():
        outputs = together(net, rows, want=3)
        return all(out.tobytes() == want[i % 64] for i, out in enumerate(outputs))

    for _ in range(8):
        go_on.set()
        predicting = threading.Thread(target=predict)
        predicting.start()
        time.sleep(0.003)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if in_child() else 2
                del net
                gc.collect()
            finally:
                os._exit(status)
        go_on.clear()
        predicting.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert in_child()


LATE = """
import os, time
import numpy as np
from fastmlp import MLP

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a partner that is never there when it is needed
net = MLP([784, 128, 10], seed=0)
X = np.random.default_rng(0).standard_normal((64, 784)).astype(np.float32)
rows, batch, n = [X[i : i + 1].copy() for i in range(64)], net._outputs(X), 0
end = time.monotonic() + 0.7
while time.monotonic() < end:
    for row, want in zip(rows, batch):
        assert net._outputs(row).tobytes() == want.tobytes()
    n += 64
print(n)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_predictions_do_not_wait_for_a_late_partner():
    environment = os.environ | {"FASTMLP_NUM_THREADS": "2", "FASTMLP_BACKEND": "engine", "FASTMLP_CHECK": "0"}
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


# A plan of made-up ops on eight numbers, halves of which are the partner's in the second and third; sometimes one of
# the two is late. Prints how many rows were computed by two, how many by the caller alone, and how many were wrong.
PROTOCOL = r"""
#define _GNU_SOURCE
#include "partner.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define N 8
static long input, x[N], y[N], z[N], sum;
static int lateness; /* microseconds: of the partner in every 200th row, of the caller in every 300th */

static void gather(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)op, (void)step, (void)begin, (void)end;
    for (int i = 0; i < N; i++) x[i] = input * (i + 1);
}

static void half(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    const long *from = op->x.p;
    long *to = op->y.p;
    (void)step, (void)begin, (void)end;
    if (lateness && from[0] % (op->first_in ? 200 : 300) == 0) usleep((useconds_t)lateness);
    for (int64_t i = op->first_in; i < op->first_in + N / 2; i++) {
        to[i] = 1;
        for (int j = 0; j < N; j++) to[i] += from[j] * (i + j);
    }
}

static void add(const fm_op *op, const fm_step *step, int64_t begin, int64_t end)
{
    (void)op, (void)step, (void)begin, (void)end;
    sum = 0;
    for (int i = 0; i < N; i++) sum += z[i];
}

int main(void)
{
    fm_kernels kernels = {.run = {[FM_gather] = gather, [FM_linear] = half, [FM_scatter] = add}};
    fm_op ops[8];
    memset(ops, 0, sizeof ops);
    for (int me = 0; me < 2; me++) {
        fm_op *mine = ops + 4 * me;
        mine[0].opcode = FM_gather, mine[1].opcode = mine[2].opcode = FM_linear, mine[3].opcode = FM_scatter;
        mine[1].x.p = x, mine[1].y.p = y, mine[2].x.p = y, mine[2].y.p = z;
        mine[1].first_in = mine[2].first_in = me * N / 2;
    }
    const uint8_t sync[4] = {0, 1, 1, 1}, own[4] = {0, 1, 1, 0};
    fm_plan plan = {.team = {ops, sync, own, FM_BARRIERS_BY_SYNC}, .n_ops = 4, .n_workers = 2, .kernels = &kernels};
    for (lateness = 0; lateness <= 2000; lateness += 1000) {
        long rows = 0, by_one = 0, wrong = 0;
        fm_partner *partner = fm_partner_new(&plan);
        for (input = 1; input <= (lateness ? 20000 : 200000); input++) {
            const int64_t start = fm_ticks();
            sum = -1;
            const enum fm_partner_did did = fm_partner_row(partner);
            if (did == FM_PARTNER_ROW) {
                long a[N], b[N], want = 0;
                for (int i = 0; i < N; i++) a[i] = input * (i + 1);
                for (int i = 0; i < N; i++) {
                    b[i] = 1;
                    for (int j = 0; j < N; j++) b[i] += a[j] * (i + j);
                }
                for (int i = 0; i < N; i++) {
                    long c = 1;
                    for (int j = 0; j < N; j++) c += b[j] * (i + j);
                    want += c;
                }
                rows++, wrong += sum != want;
                continue;
            }
            if (did == FM_PARTNER_WANTED) fm_partner_invite(partner);
            while (fm_ticks() - start < 20000) continue; /* alone it takes long: so together is faster */
            fm_partner_was_alone(partner, start);
            by_one += did == FM_PARTNER_NONE;
        }
        fm_partner_free(partner);
        printf("%ld %ld %ld\n", rows, by_one, wrong);
    }
    return 0;
}
"""


def test_the_protocol_of_two_threads_when_one_is_late(tmp_path):
    program = c_code.program(tmp_path, PROTOCOL, "partner", "helpers", "balance")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        rows, _, wrong = map(int, line.split())
        assert rows > 0 and wrong == 0


def test_plans_that_are_not_for_two_are_refused():
    net = MLP([784, 128, 10], seed=0)
    engine, shared = (_engine.Engine(plan) for plan in (prediction_plan(net, 1), shared_row_plan(net)))
    with pytest.raises(ValueError, match="two workers"):
        _engine.RowPredictor(engine, _engine.Engine(prediction_plan(net, 1, 2)))
    assert _engine.RowPredictor(engine, shared, lambda: 2)(np.zeros((1, 784), np.float32)) is not None
    with pytest.raises(ValueError, match="one row"):
        _engine.RowPredictor(engine, _engine.Engine(prediction_plan(net, 2)))


def test_small_networks_have_no_partner():
    assert shared_row_plan(MLP([100, 100, 10])) is None
    net = MLP([16, 32, 3])
    assert row_predictor(_engine.Engine(prediction_plan(net, 1)), None).partner_rows == 0
