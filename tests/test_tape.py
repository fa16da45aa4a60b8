"""The ops of plans, where a wrong op would train nearly as well as the right one."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import c_code
import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, Trainer
from fastmlp.plan import column_share


def plan_of(**options):
    return Trainer(MLP([6, 5, 5, 3], seed=1), SGD(0.1), **options).plan_for(8, True)


def test_each_layer_has_its_own_mask_forward_and_backward():
    ops = [op for op in plan_of(dropout=0.5, input_dropout=0.25).ops if op.opcode == "dropout"]
    forward, backward = ops[:3], ops[3:]
    assert [op.param for op in forward] == [0.25, 0.5, 0.5]
    assert len({op.seed for op in forward}) == 3
    assert [(op.seed, op.param, op.n_in) for op in backward] == [(op.seed, op.param, op.n_in) for op in forward[:0:-1]]
    assert all(op.x is op.y for op in backward) and all(op.x is not op.y for op in forward)


def test_the_norm_is_limited_before_the_average_is_taken():
    opcodes = [op.opcode for op in plan_of(max_norm=1.0, average=0.9).ops]
    assert opcodes[-9:] == ["linear_update"] * 3 + ["max_norm"] * 3 + ["average"] * 3


def test_weights_are_updated_after_all_gradients():
    for options in ({}, {"dropout": 0.5}, {"max_norm": 1.0, "average": 0.9}, {"accumulate": 2}):
        opcodes = np.array([op.opcode for op in plan_of(**options).ops])
        moves = np.isin(opcodes, ["update", "linear_update", "max_norm"])
        assert np.flatnonzero(opcodes == "linear_back").max() < np.flatnonzero(moves).min()


def splits(plan):
    """The last column of the listing, with its barriers."""
    return [line.split()[-1] for line in str(plan).splitlines()[1:]]


@pytest.fixture
def threads(request):
    fastmlp.set_num_threads(request.param)
    return request.param


def wide_plan(*sizes, batch=1000, **options):
    optimizer = SGD(0.1, clip_norm=options.pop("clip_norm", None))
    return Trainer(MLP(sizes, seed=1), optimizer, **options).plan_for(batch, True)


BACKWARD = ["rows"] * 4 + ["barrier"]


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_workers_share_a_wide_first_layer_by_columns(threads):
    # No worker writes y before all have read that of the previous step, and none reads it before all have written.
    expected = ["copies", "barrier", "columns", "barrier", *BACKWARD, "params", "columns"]
    assert splits(wide_plan(20, 100, 3)) == expected
    expected = ["copies", "barrier", "columns", "barrier", "rows", "rows", "barrier", "columns"]
    assert splits(wide_plan(20, 100)) == expected


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_workers_share_a_long_first_layer_by_inputs(threads):
    # The first may not begin the sums of a step before both have read those of the previous step.
    expected = ["inputs", "barrier", "inputs", "barrier", *BACKWARD, "params", "params"]
    assert splits(wide_plan(40, 16, 3)) == splits(wide_plan(300, 100, 3)) == expected
    assert splits(wide_plan(20, 16, 3)) == ["rows", "rows", *BACKWARD, "params", "params"]


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_workers_read_the_inputs_whose_weights_they_update(threads):
    gather, linear = wide_plan(41, 16, 3).ops[:2]
    begin = 0
    for me in range(threads):
        read, add = gather.of_worker(me, threads), linear.of_worker(me, threads)
        end = min((linear.n_in + 1) * (me + 1) // threads, linear.n_in)  # as worker.h splits the rows of parameters
        assert (read.first_in, read.n_in) == (add.first_in, add.n_in) == (begin, end - begin)
        assert np.shares_memory(read.x, add.x) and read.x.shape == add.x.shape == (1000, end - begin)
        add.w[:], add.x[:] = me, me
        begin = end
    assert (linear.w[:-1, 0] == np.repeat([0, 1], [21, 20])).all()
    assert (linear.x[0] == np.repeat([0, 1], [21, 20])).all()
    first, second = (linear.of_worker(me, threads) for me in range(threads))
    assert first.kind == "identity" and np.shares_memory(first.init, linear.w[-1:])
    assert second.kind == linear.kind and second.init is linear.y


@pytest.mark.parametrize("threads", [3], indirect=True)
def test_three_workers_share_by_columns_only_if_each_has_some(threads):
    assert splits(wide_plan(20, 96, 3))[::2][:2] == ["copies", "columns"]
    assert splits(wide_plan(20, 64, 3)) == ["rows", "rows", *BACKWARD, "params", "params"]


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        {"input_dropout": 0.5},
        {"max_norm": 1.0},
        {"average": 0.9},
        {"accumulate": 2},
        {"clip_norm": 1.0},
        {"batch": 2000},
    ],
    ids=str,
)
def test_first_layer_is_shared_by_rows_where_other_ops_use_its_weights(threads, options):
    for n_in in (20, 300):
        plan = wide_plan(n_in, 100, 3, **options)
        assert not any(plan.own) and all(op.copies is None for op in plan.ops)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_weights_too_large_for_a_cache_are_shared_by_rows(threads):
    assert not any(wide_plan(300, 500, 3).own) and any(wide_plan(200, 500, 3).own)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_step_that_one_worker_does_alone_is_not_shared(threads):
    assert not any(wide_plan(20, 100, 3, batch=8).own)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_workers_share_many_weights_by_columns_where_rows_are_few(threads):
    # No worker reads a result before all have written their columns of it.
    each = ["columns", "barrier"]
    expected = ["rows", "barrier", *each, *each, "rows", "rows", "rows", "rows", "barrier", *each, *["params"] * 3]
    assert splits(wide_plan(300, 500, 500, 3, batch=64)) == expected
    assert not any(wide_plan(300, 500, 500, 3, batch=65).own)
    assert any(wide_plan(300, 1500, 1500, 3, batch=256).own)  # from memory
    assert not any(wide_plan(300, 1500, 1500, 3, batch=257).own)
    assert not any(wide_plan(20000, 32, batch=64).own)  # a cache line of columns


@pytest.mark.parametrize("threads", [3], indirect=True)
def test_columns_of_a_gradient_correspond_to_rows_of_the_weights(threads):
    back = next(op for op in wide_plan(20, 300, 900, batch=90).ops if op.opcode == "linear_back")
    mine = [back.of_worker(me, threads) for me in range(threads)]
    assert [op.n_in for op in mine] == [128, 96, 76] and all(op.dy is back.dy for op in mine)
    for me, op in enumerate(mine):
        op.w[...], op.dx[...], op.y[...] = me, me, me
    back.w[-1] = 7  # the bias takes no part
    for columns in (back.w[:-1, 0], back.dx[0], back.y[0]):
        assert (columns == np.repeat([0, 1, 2], [128, 96, 76])).all()


@pytest.mark.parametrize("threads", [3], indirect=True)
def test_workers_columns_cover_all_and_copies_are_separate(threads):
    plan = wide_plan(20, 300, 3)
    gather, linear, update = plan.ops[0], plan.ops[1], plan.ops[-1]
    mine = [linear.of_worker(me, threads) for me in range(threads)]
    assert [op.n_out for op in mine] == [op.y.shape[1] for op in mine] == [128, 96, 76]
    for name in ("w", "y"):
        for me, op in enumerate(mine):
            getattr(op, name)[...] = me
        assert (getattr(linear, name)[0] == np.repeat([0, 1, 2], [128, 96, 76])).all()
    assert update.of_worker(1, threads).w.shape == (21, 96)
    assert len({id(gather.of_worker(me, threads).x) for me in range(threads)}) == threads
    assert all(linear.of_worker(me, threads).x is gather.of_worker(me, threads).x for me in range(threads))


def test_no_two_workers_write_to_one_cache_line():
    for n_workers in range(1, 9):
        for columns in (1, 31, 32, 33, 500):
            shares = [column_share(columns, "float32", me, n_workers) for me in range(n_workers)]
            assert shares[0][0] == 0 and shares[-1][1] == columns
            for (_, end), (begin, _) in pairwise(shares):
                assert end == begin and (begin % 32 == 0 or begin == columns)


def number(text):
    """The value of a constant of the sources: a number, or a shift of one."""
    left, shift, right = text.strip("()").partition("<<")
    return ast.literal_eval(left.strip()) << int(right) if shift else ast.literal_eval(left.strip())


def test_constants_that_python_shares_with_c_agree():
    sources = "\n".join(path.read_text() for path in Path(fastmlp.__file__).parent.glob("*.py"))
    shared = re.findall(r"^(\w+) = ([^#\n]+?)  # .*as in csrc/([\w/.]+)", sources, re.MULTILINE)
    assert {"SERIAL_STEP", "DIRECT_ROWS", "DISTANT", "SUMMED_ROWS", "MAX_WORKERS"} <= {name for name, _, _ in shared}
    if not c_code.CSRC.is_dir():
        pytest.skip("the C sources (csrc) are not beside these tests")
    for name, value, file in shared:
        there = re.search(rf"^#define (?:FM_)?{name} (\([^)]*\)|\S+)", (c_code.CSRC / file).read_text(), re.MULTILINE)
        assert there, f"{file} defines no {name}"
        assert number(there[1]) == number(value), name
