"""What the tape writes down, where a wrong line would train nearly as well as the right one."""

import numpy as np

from fastmlp import MLP, SGD, Trainer


def plan_of(**options):
    return Trainer(MLP([6, 5, 5, 3], seed=1), SGD(0.1), **options).plan_for(8, True)


def test_every_layer_has_masks_of_its_own_and_the_same_ones_backward():
    ops = [op for op in plan_of(dropout=0.5, input_dropout=0.25).ops if op.opcode == "dropout"]
    forward, backward = ops[:3], ops[3:]
    assert [op.param for op in forward] == [0.25, 0.5, 0.5]
    assert len({op.seed for op in forward}) == 3
    assert [(op.seed, op.param, op.n_in) for op in backward] == [(op.seed, op.param, op.n_in) for op in forward[:0:-1]]
    assert all(op.x is op.y for op in backward) and all(op.x is not op.y for op in forward)


def test_the_norm_is_limited_before_the_average_is_taken():
    opcodes = [op.opcode for op in plan_of(max_norm=1.0, average=0.9).ops]
    assert opcodes[-9:] == ["linear_update"] * 3 + ["max_norm"] * 3 + ["average"] * 3


def test_no_weight_moves_before_every_gradient_went_through_it():
    for options in ({}, {"dropout": 0.5}, {"max_norm": 1.0, "average": 0.9}, {"accumulate": 2}):
        opcodes = np.array([op.opcode for op in plan_of(**options).ops])
        moves = np.isin(opcodes, ["update", "linear_update", "max_norm"])
        assert np.flatnonzero(opcodes == "linear_back").max() < np.flatnonzero(moves).min()
