"""Bad input gets an error that names the argument, the value and what is allowed, before anything has changed."""

import tracemalloc

import numpy as np
import pytest
from conftest import COMPILED, needs_engine
from kinds import LABELS, ROWS, VALUES, X, fit, networks, state

import fastmlp
from fastmlp import MLP, SGD, AdaGrad, Adam, AdamW, RMSprop, Trainer, losses
from fastmlp.activations import ELU, LeakyReLU
from fastmlp.lockstep import LockStepExecutor
from fastmlp.plans import prediction_plan
from fastmlp.runtime import executor


def with_value(array, value, at=7):
    array = np.array(array, dtype=np.float64)
    array[at] = value
    return array


def new(*args, **kwargs):
    return lambda nets: MLP(*args, **kwargs)


def predict(X):
    return lambda nets: nets.labels.predict(X)


class Sparse:
    """What scipy's sparse matrices have in common."""

    nnz = 0

    def toarray(self):
        return X


class Frame:
    """What tables have in common: columns of numbers and booleans that are no array of numbers together."""

    dtypes, astype = {"a": float, "b": bool}, None

    def __array__(self, dtype=None, copy=None):
        return X.astype(object)


class Raises:
    """Cannot be converted to an array: one of its methods raises the error."""

    def __init__(self, method, error):
        self.method, self.error = method, error

    def __len__(self):
        return self._answer("__len__", 4)

    def __iter__(self):
        return self._answer("__iter__", iter([0, 0, 0, 0]))

    def __getitem__(self, i):
        return self._answer("__getitem__", 0)

    def __array__(self, dtype=None, copy=None):
        return self._answer("__array__", np.zeros(4))

    def _answer(self, method, value):
        if method == self.method:
            raise self.error
        return value


class RaisesAtItems:
    """A sequence whose items cannot be read."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        raise OSError("the disk is gone")


def masked(array, at=(7, 9)):
    """With some values masked."""
    found = np.ma.masked_array(array, mask=np.zeros(np.shape(array), bool))
    for i in at:
        found[i] = np.ma.masked
    return found


ZEROS = np.zeros((4, 3))
PAIRS = [(np.zeros((4, 5)), np.zeros(5)), (np.zeros((5, 3)), np.zeros(3))]
SIZES = {
    "none": (new([]), ValueError, ["sizes", "[]"]),
    "one": (new([784]), ValueError, ["sizes", "[784]"]),
    "zero": (new([4, 0, 3]), ValueError, ["sizes[1]", "at least 1", "got 0"]),
    "negative": (new([4, 5, -3]), ValueError, ["sizes[2]", "at least 1", "got -3"]),
    "float": (new([4, 5.0]), TypeError, ["sizes[1]", "whole number", "got 5.0"]),
    "bool": (new([4, True]), TypeError, ["sizes[1]", "whole number", "got True"]),
    "string": (new([4, "3"]), TypeError, ["sizes[1]", "whole number", "'3'"]),
    "text": (new("784"), TypeError, ["sizes", "'784'", "list"]),
    "number": (new(784), TypeError, ["sizes", "got 784", "list"]),
    "one class": (
        lambda nets: MLP([4, 5, 1]).fit(X, LABELS),
        ValueError,
        ["y must", "0..0", "1 output", "binary_cross_entropy", "2 outputs"],
    ),
}
NAMES = {
    "activation": (new([4, 5, 3], "rely"), ValueError, ["activation", "'rely'", "relu, ", "tanh"]),
    "activation type": (new([4, 5, 3], 7), TypeError, ["activation", "got 7", "name"]),
    "activation list": (
        new([4, 5, 3], ["relu", "tanh"]),
        ValueError,
        ["activation", "1 item, one for each hidden layer, got 2"],
    ),
    "hidden softmax": (new([4, 5, 3], "softmax"), ValueError, ["activation", "'softmax'", "output"]),
    "loss": (new([4, 3], loss="msee"), ValueError, ["loss", "'msee'", "mse, ", "cross_entropy"]),
    "loss type": (new([4, 3], loss=None), TypeError, ["loss", "got None", "name"]),
    "output": (new([4, 3], loss="mse", output="sigmoidal"), ValueError, ["output", "'sigmoidal'", "sigmoid, "]),
    "output type": (new([4, 3], loss="mse", output=3), TypeError, ["output", "got 3", "name"]),
    "output of a loss": (new([4, 3], output="relu"), ValueError, ["output", "'relu'", "'softmax'", "'cross_entropy'"]),
    "optimizer": (fit(optimizer="sdg"), ValueError, ["optimizer", "'sdg'", "sgd", "adam"]),
    "optimizer type": (fit(optimizer=SGD), TypeError, ["optimizer", "SGD", "name"]),
    "initializer": (new([4, 3], initializer="xavier"), ValueError, ["initializer", "'xavier'", "glorot_uniform"]),
    "initializer type": (new([4, 3], initializer=3), TypeError, ["initializer", "got 3", "name"]),
    "initializer gives nothing": (new([4, 3], initializer=lambda *_: None), TypeError, ["initializer", "object"]),
    "initializer gives NaN": (new([4, 3], initializer=lambda *_: np.nan), ValueError, ["initializer", "nan"]),
    "initializer gives too much": (new([4, 3], initializer=lambda *_: 1e300), ValueError, ["initializer", "float32"]),
    "initializer turns": (new([4, 3], initializer=lambda *_: np.ones((3, 4))), ValueError, ["(4, 3)", "(3, 4)"]),
    "dtype": (new([4, 3], dtype="float16"), ValueError, ["dtype", "'float16'", "'float32'", "'float64'"]),
    "dtype nonsense": (new([4, 3], dtype="flot32"), ValueError, ["dtype", "'flot32'", "'float64'"]),
    "dtype none": (new([4, 3], dtype=None), ValueError, ["dtype", "got None", "'float32'"]),
    "backend": (new([4, 3], backend="cuda"), ValueError, ["backend", "'cuda'", "engine", "reference"]),
    "bias": (new([4, 3], bias=1), TypeError, ["bias", "got 1", "True or False"]),
    "seed": (new([4, 3], seed=-1), ValueError, ["seed", "got -1", "between 0"]),
    "seed float": (new([4, 3], seed=1.5), TypeError, ["seed", "got 1.5", "whole number"]),
    "net": (lambda nets: Trainer("net"), TypeError, ["net", "'net'", "MLP"]),
    "keyword": (fit(epoch=3), TypeError, ["epoch"]),
    "predict_proba": (lambda nets: nets.values.predict_proba(X), ValueError, ["predict_proba", "'identity'"]),
    "threads": (lambda nets: fastmlp.set_num_threads(0), ValueError, ["n must", "at least 1", "got 0"]),
    "threads float": (lambda nets: fastmlp.set_num_threads(2.0), TypeError, ["n must", "whole number", "got 2.0"]),
    "plan": (lambda nets: nets.labels.plan(batch_size=0), ValueError, ["batch_size", "at least 1", "got 0"]),
    "plan of all": (lambda nets: nets.labels.plan(batch_size=None), TypeError, ["batch_size", "None: for", "len(X)"]),
}
WEIGHTS = {
    "number": (new([4, 3], weights=5), TypeError, ["weights", "got 5"]),
    "no pair": (new([4, 3], weights=[5]), TypeError, ["weights[0]", "got 5"]),
    "too few": (new([4, 5, 3], weights=PAIRS[:1]), ValueError, ["weights must have 2", "each layer", "got 1"]),
    "not pairs": (new([4, 3], weights=[(ZEROS,)]), ValueError, ["weights[0]", "W and b", "got 1"]),
    "transposed": (new([4, 3], weights=[(ZEROS.T, None)]), ValueError, ["weights[0][0]", "(4, 3)", "(3, 4)"]),
    "bias": (new([4, 3], weights=[(ZEROS, np.zeros(4))]), ValueError, ["weights[0][1]", "(3,)", "(4,)"]),
    "without bias": (new([4, 3], bias=False, weights=[(ZEROS, np.ones(3))]), ValueError, ["weights[0][1]", "bias"]),
    "nan": (new([4, 3], weights=[(with_value(ZEROS, np.nan, 2), None)]), ValueError, ["weights[0][0]", "nan", "[2"]),
    "text": (new([4, 3], weights=[(np.full((4, 3), "a"), None)]), TypeError, ["weights[0][0]", "<U1", "real numbers"]),
    "second": (
        lambda nets: nets.labels.set_weights([PAIRS[0], (np.full((5, 3), np.inf), None)]),
        ValueError,
        ["weights[1][0]", "inf", "finite"],
    ),
    "huge": (
        lambda nets: nets.labels.set_weights([PAIRS[0], (np.full((5, 3), 1e39), None)]),
        ValueError,
        ["weights[1][0]", "1e+39", "float32"],
    ),
}
INPUTS = {
    "vector": (predict(X[0]), ValueError, ["X must", "2 dimensions", "(4,)"]),
    "number": (predict(3.0), ValueError, ["X must", "2 dimensions", "()"]),
    "cube": (predict(X[None]), ValueError, ["X must", "2 dimensions", "(1, 24, 4)"]),
    "columns": (predict(X[:, :3]), ValueError, ["X must", "4 columns", "(24, 3)"]),
    "no rows": (predict(X[:0]), ValueError, ["X must", "at least 1 row", "(0, 4)"]),
    "no rows to train": (fit(X[:0], LABELS[:0]), ValueError, ["X must", "at least 1 row", "(0, 4)"]),
    "nan": (fit(with_value(X, np.nan)), ValueError, ["X must", "nan", "finite", "X[7, 0]"]),
    "nan in the last row": (predict(with_value(X, np.nan, -1)), ValueError, ["X must", "nan", "X[23, 0]"]),
    "infinity": (fit(with_value(X, -np.inf)), ValueError, ["X must", "-inf", "finite", "X[7, 0]"]),
    "beyond float32": (predict(with_value(X, 1e39)), ValueError, ["X must", "1e+39", "float32"]),
    "ragged": (predict([[1, 2, 3, 4], [1, 2]]), ValueError, ["X must", "rectangular"]),
    "none": (predict(None), TypeError, ["X must", "object", "real numbers"]),
    "object": (predict(X.astype(object)), TypeError, ["X must", "object", "real numbers"]),
    "table": (
        fit(Frame()),
        TypeError,
        ["X must", "array of object; if all its columns are numbers, use X.astype(float)"],
    ),
    "string": (predict(X.astype(str)), TypeError, ["X must", "<U", "real numbers"]),
    "bytes": (predict(X.astype(bytes)), TypeError, ["X must", "|S", "real numbers"]),
    "complex": (predict(X + 0j), TypeError, ["X must", "complex128", "real numbers"]),
    "dates": (predict(X.astype("datetime64[s]")), TypeError, ["X must", "datetime64", "real numbers"]),
    "sparse": (fit(Sparse()), TypeError, ["X must", "Sparse", "dense", "toarray"]),
    "activations": (lambda nets: nets.labels.activations(X[:, :3]), ValueError, ["X must", "4 columns", "(24, 3)"]),
    "gradients": (
        lambda nets: nets.labels.loss_and_gradients(X, LABELS[:3]),
        ValueError,
        ["y must", "as X, 24", "(3,)"],
    ),
    "step": (lambda nets: Trainer(nets.labels).step(X, LABELS + 1), ValueError, ["y must", "0..2", "got 3"]),
    "evaluate": (
        lambda nets: nets.labels.evaluate(X, LABELS, np.ones(3)),
        ValueError,
        ["sample_weight", "24 rows", "(3,)"],
    ),
}
DISK, NUMBER = OSError("the disk is gone"), ValueError("no number")
UNREADABLE = {  # what a caller's own object raises
    "array": (predict(Raises("__array__", DISK)), TypeError, ["X must be an array", "Raises", "OSError: the disk is"]),
    "array value": (predict(Raises("__array__", NUMBER)), ValueError, ["X must be", "no number"]),
    "items": (predict(RaisesAtItems()), TypeError, ["X must be an array", "RaisesAtItems", "the disk is gone"]),
    "y": (fit(y=Raises("__array__", ZeroDivisionError("zero"))), TypeError, ["y must be an array", "zero"]),
    "weight": (fit(sample_weight=Raises("__array__", DISK)), TypeError, ["sample_weight must be an array", "disk"]),
    "W": (new([4, 3], weights=[(Raises("__array__", DISK), None)]), TypeError, ["weights[0][0]", "disk"]),
    "length": (new([4, 3], weights=Raises("__len__", DISK)), TypeError, ["weights must have 1 item", "disk"]),
    "pair": (new([4, 3, 3, 3, 3], weights=Raises("__iter__", DISK)), TypeError, ["weights must have 4", "disk"]),
    "set": (new([4, 3], weights=[{1, 2}]), ValueError, ["weights[0][", "shape"]),
}
MASKED = {
    "X": (predict(masked(X)), ValueError, ["X must have no masked values", "8 masked of 96", "fill", "drop"]),
    "X to train": (fit(masked(X)), ValueError, ["X must have no masked", "8 masked"]),
    "y": (fit(y=masked(LABELS)), ValueError, ["y must have no masked", "2 masked of 24"]),
    "values": (fit(y=masked(VALUES), net="values"), ValueError, ["y must have no masked", "2 masked"]),
    "flags": (fit(masked(X > 0)), ValueError, ["X must have no masked", "8 masked"]),
    "weight": (fit(sample_weight=masked(np.ones(ROWS))), ValueError, ["sample_weight must have no masked", "2 masked"]),
    "W": (new([4, 3], weights=[(masked(ZEROS, [0]), None)]), ValueError, ["weights[0][0]", "3 masked"]),
    "validation X": (fit(validation=(masked(X), LABELS)), ValueError, ["validation X must", "8 masked"]),
    "validation rows": (fit(validation=masked(np.arange(12))), ValueError, ["validation must", "2 masked"]),
    "step": (lambda nets: Trainer(nets.labels).step(masked(X), LABELS), ValueError, ["X must", "8 masked"]),
    "metric": (lambda nets: fastmlp.metrics.accuracy(masked(LABELS), LABELS), ValueError, ["y must", "2 masked"]),
}
TARGETS = {
    "too few": (fit(y=LABELS[:-1]), ValueError, ["y must", "as many rows as X, 24", "(23,)"]),
    "number": (fit(X[:1], 2), ValueError, ["y must", "(1, 3)", "()"]),
    "column of labels": (fit(y=LABELS[:, None]), ValueError, ["y must", "(24, 3)", "(24, 1)", "y.ravel()"]),
    "labels for mse": (fit(y=LABELS, net="several"), ValueError, ["y must", "(24, 3)", "(24,)", "np.eye(3)[y]"]),
    "column of labels for mse": (fit(y=LABELS[:, None], net="several"), ValueError, ["y must", "np.eye(3)[y.ravel()]"]),
    "one target for quantiles": (fit(y=LABELS, net="quantiles"), ValueError, ["(24,)", "use np.tile(y[:, None], 3)"]),
    "one column for quantiles": (fit(y=VALUES[:, None], net="quantiles"), ValueError, ["(24, 1)", "use np.tile(y, 3)"]),
    "negative": (fit(y=LABELS - 1), ValueError, ["y must", "0..2", "got -1"]),
    "too large": (fit(y=LABELS + 1), ValueError, ["y must", "0..2", "got 3"]),
    "huge": (fit(y=LABELS.astype(np.uint64) + 2**63), ValueError, ["y must", "0..2", "got 922337203685477"]),
    "huge float": (fit(y=with_value(LABELS, 1e300)), ValueError, ["y must", "0..2", "1e+300"]),
    "halves": (fit(y=LABELS + 0.5), ValueError, ["y must", "whole", "0..2", "got 0.5"]),
    "nan label": (fit(y=with_value(LABELS, np.nan)), ValueError, ["y must", "nan", "finite"]),
    "float32 nan": (fit(y=with_value(LABELS, np.nan).astype(np.float32)), ValueError, ["y must", "nan", "finite"]),
    "names": (fit(y=np.array(["a", "b", "c"])[LABELS]), TypeError, ["y must", "<U1", "real numbers"]),
    "object": (fit(y=LABELS.astype(object)), TypeError, ["y must", "object", "real numbers"]),
    "complex": (fit(y=LABELS + 0j), TypeError, ["y must", "complex128", "real numbers"]),
    "sparse": (fit(y=Sparse()), TypeError, ["y must", "Sparse", "dense"]),
    "columns": (fit(y=np.eye(4)[LABELS]), ValueError, ["y must", "(24, 3)", "(24, 4)"]),
    "above one": (fit(y=2 * np.eye(3)[LABELS]), ValueError, ["y must", "0..1", "got 2.0"]),
    "below zero": (fit(y=-np.eye(2)[LABELS % 2], net="binary"), ValueError, ["y must", "0..1", "got -1.0"]),
    "binary columns": (fit(y=LABELS % 2, net="binary"), ValueError, ["y must", "(24, 2)", "(24,)"]),
    "nan value": (fit(y=with_value(VALUES, np.nan), net="values"), ValueError, ["y must", "nan", "y[7, 0]"]),
    "infinite value": (fit(y=with_value(VALUES, np.inf), net="values"), ValueError, ["y must", "inf", "finite"]),
    "negative count": (
        fit(y=with_value(LABELS, -2), net="counts"),
        ValueError,
        ["y must", "0..inf", "poisson", "got -2"],
    ),
}
WEIGHT = {
    "too few": (fit(sample_weight=np.ones(5)), ValueError, ["sample_weight", "24 rows", "(5,)"]),
    "column": (fit(sample_weight=np.ones((ROWS, 1))), ValueError, ["sample_weight", "24 rows", "(24, 1)"]),
    "negative": (
        fit(sample_weight=with_value(np.ones(ROWS), -0.5)),
        ValueError,
        ["sample_weight", "negative", "got -0.5"],
    ),
    "all zero": (fit(sample_weight=np.zeros(ROWS)), ValueError, ["sample_weight", "all zero"]),
    "nan": (fit(sample_weight=with_value(np.ones(ROWS), np.nan)), ValueError, ["sample_weight", "nan", "finite"]),
    "infinite": (fit(sample_weight=with_value(np.ones(ROWS), np.inf)), ValueError, ["sample_weight", "inf", "finite"]),
    "text": (fit(sample_weight="balanced"), TypeError, ["sample_weight", "real numbers"]),
    "sum overflows": (
        fit(sample_weight=np.full(ROWS, 1e308)),
        ValueError,
        ["sample_weight", "1e+100", "1e+308"],
    ),
    "inverse overflows": (fit(sample_weight=np.full(ROWS, 1e-310)), ValueError, ["sample_weight", "[1e-100", "1e-310"]),
    "one of them": (fit(sample_weight=with_value(np.ones(ROWS), 1e-101)), ValueError, ["sample_weight", "1e-101"]),
    "evaluate": (
        lambda nets: nets.labels.evaluate(X, LABELS, np.full(ROWS, 1e-310)),
        ValueError,
        ["sample_weight", "1e-310"],
    ),
    "class": (fit(class_weight={1: 1e308}), ValueError, ["class_weight[1]", "1e-100, 1e+100", "1e+308"]),
    "class of a loss": (
        new([4, 3], loss=losses.CrossEntropy(class_weight={2: 1e-310})),
        ValueError,
        ["class_weight[2]", "1e-310"],
    ),
    "class and row": (
        fit(class_weight={1: 1e60}, sample_weight=np.full(ROWS, 1e60)),
        ValueError,
        ["class_weight times sample_weight", "1e-100, 1e+100", "1e+120"],
    ),
}
SETTINGS = {
    "epochs": (fit(epochs=0), ValueError, ["epochs", "at least 1", "got 0"]),
    "epochs float": (fit(epochs=2.0), TypeError, ["epochs", "whole number", "got 2.0"]),
    "epochs bool": (fit(epochs=True), TypeError, ["epochs", "whole number", "got True"]),
    "batch_size": (fit(batch_size=0), ValueError, ["batch_size", "at least 1", "got 0"]),
    "batch_size negative": (fit(batch_size=-1), ValueError, ["batch_size", "at least 1", "got -1"]),
    "batch_size text": (fit(batch_size="auto"), TypeError, ["batch_size", "whole number", "'auto'"]),
    "shuffle": (fit(shuffle="no"), TypeError, ["shuffle", "'no'", "True or False"]),
    "callbacks": (fit(callbacks=5), TypeError, ["callbacks", "got 5"]),
    "validation array": (fit(validation=X), TypeError, ["validation", "(X, y)", "ndarray"]),
    "validation share": (fit(validation=0.1), TypeError, ["validation", "(X, y)", "float"]),
    "validation of one": (fit(validation=(X,)), TypeError, ["validation", "(X, y)", "tuple"]),
    "validation of four": (fit(validation=(X, LABELS, None, 1)), TypeError, ["validation", "(X, y)", "tuple"]),
    "validation X": (fit(validation=(X[:, :2], LABELS)), ValueError, ["validation X", "4 columns", "(24, 2)"]),
    "validation y": (fit(validation=(X, LABELS + 1)), ValueError, ["validation y", "0..2", "got 3"]),
    "validation empty": (fit(validation=(X[:0], LABELS[:0])), ValueError, ["validation X", "at least 1 row"]),
    "validation weight": (
        fit(validation=(X, LABELS, -np.ones(ROWS))),
        ValueError,
        ["validation sample_weight", "got -1"],
    ),
}


def parameter(optimizer, name, value, allowed, error=ValueError):
    return fit(optimizer=optimizer(**{name: value})), error, [optimizer.__name__, name, f"got {value!r}", allowed]


PARAMETERS = {
    **{f"rate {rate}": parameter(SGD, "learning_rate", rate, "(0, inf)") for rate in (0, -1.0, np.nan, np.inf)},
    "rate type": parameter(SGD, "learning_rate", "0.1", "(0, inf)", TypeError),
    "rate bool": parameter(SGD, "learning_rate", True, "(0, inf)", TypeError),
    # In batches, which are shuffled: the next run's order must not have changed either.
    "rate function": (fit(optimizer=SGD(lambda step: -1.0), batch_size=8), ValueError, ["learning_rate", "got -1.0"]),
    "momentum": parameter(SGD, "momentum", 1.0, "[0, 1)"),
    "momentum below": parameter(SGD, "momentum", -0.1, "[0, 1)"),
    "nesterov": parameter(SGD, "nesterov", 1, "True or False", TypeError),
    "nesterov alone": (fit(optimizer=SGD(nesterov=True)), ValueError, ["SGD", "nesterov", "momentum"]),
    **{name: parameter(SGD, name, -0.1, "[0, inf)") for name in ("l1", "l2", "weight_decay", "bias_lr_factor")},
    **{name: parameter(SGD, name, 0.0, "(0, inf)") for name in ("clip_norm", "clip_value")},
    "alpha": parameter(RMSprop, "alpha", 1.5, "[0, 1)"),
    "eps": parameter(AdaGrad, "eps", 0.0, "[1e-30, inf)"),
    "betas": (fit(optimizer=Adam(betas=(0.9, 1.0))), ValueError, ["Adam", "betas[1]", "got 1.0", "[0, 1)"]),
    "betas type": (fit(optimizer=AdamW(betas=0.9)), TypeError, ["AdamW", "betas", "got 0.9", "two numbers"]),
    "smoothing": (new([4, 3], loss=losses.CrossEntropy(1.0)), ValueError, ["label_smoothing", "got 1.0", "[0, 1)"]),
    "quantiles": (new([4, 3], loss=losses.Quantile((0.1, 0.9))), ValueError, ["q has 2 values", "3 outputs"]),
    "delta": (new([4, 3], loss=losses.Huber(0)), ValueError, ["delta", "got 0", "(0, inf)"]),
    "slope": (new([4, 5, 3], LeakyReLU(np.nan)), ValueError, ["LeakyReLU", "slope", "nan"]),
    "alpha of elu": (new([4, 5, 3], ELU("1")), TypeError, ["ELU", "alpha", "'1'"]),
    "scale too small": (new([4, 1], loss=losses.MSE(1e-50)), ValueError, ["MSE: scale", "float32", "1e-50"]),
    "scale too large": (new([4, 1], loss=losses.MSE(1e39)), ValueError, ["MSE: scale", "float32", "1e+39"]),
    "delta too small": (new([4, 1], loss=losses.Huber(1e-50)), ValueError, ["Huber: delta", "float32", "1e-50"]),
    "slope too large": (new([4, 5, 3], LeakyReLU(1e39)), ValueError, ["LeakyReLU: slope", "float32", "1e+39"]),
    "alpha too large": (new([4, 3, 3, 3], ["relu", ELU(1e39)]), ValueError, ["ELU: alpha", "float32", "1e+39"]),
    "output too large": (new([4, 1], loss="mse", output=ELU(1e39)), ValueError, ["ELU: alpha", "float32", "1e+39"]),
    "a quantile too small": (
        new([4, 2], loss=losses.Quantile((0.5, 1e-50))),
        ValueError,
        ["Quantile: q[1]", "float32", "1e-50"],
    ),
}
TABLE = {
    f"{group}: {name}": row
    for group, rows in (
        *(("sizes", SIZES), ("names", NAMES), ("weights", WEIGHTS), ("X", INPUTS), ("y", TARGETS)),
        *(("unreadable", UNREADABLE), ("masked", MASKED)),
        *(("sample_weight", WEIGHT), ("settings", SETTINGS), ("parameters", PARAMETERS)),
    )
    for name, row in rows.items()
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_refused_by_name_and_changes_nothing(name):
    call, error, words = TABLE[name]
    nets = networks()
    before = {name: state(net) for name, net in vars(nets).items()}
    with pytest.raises(error) as caught:
        call(nets)
    assert type(caught.value) is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in the message: {caught.value}"
    for name, net in vars(nets).items():
        assert state(net) == before[name], name
    nets.labels.fit(X, LABELS, epochs=1)  # and the network still works


def test_masked_arrays_without_masked_values_are_arrays():
    given = [masked(array, []) for array in (X, LABELS, np.ones(ROWS))]
    found, plain = networks().labels, networks().labels
    assert found.fit(*given[:2], sample_weight=given[2], epochs=1).loss == plain.fit(X, LABELS, epochs=1).loss
    np.testing.assert_array_equal(found.predict(given[0]), plain.predict(X))


@pytest.mark.parametrize(("net", "y"), [("rates", LABELS), ("several", LABELS * 2), ("several", LABELS - 1)])
def test_class_numbers_are_not_suggested_for_other_values(net, y):
    with pytest.raises(ValueError, match=r"y must have shape \(24, 3\), .*, got \(24,\)$"):
        getattr(networks(), net).fit(X, y)


def test_an_error_raised_by_an_argument_is_the_cause():
    with pytest.raises(TypeError) as caught:
        networks().labels.predict(Raises("__array__", DISK))
    assert caught.value.__cause__ is DISK


def test_memory_error_in_an_argument_is_raised_as_such():
    with pytest.raises(MemoryError):
        networks().labels.predict(Raises("__array__", MemoryError()))


def test_tensors_that_numpy_cannot_read_are_refused_by_name():
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(ROWS, 4)
    for given in (tensor.clone().requires_grad_(), tensor.bfloat16(), tensor.to_sparse(), tensor.to("meta")):
        with pytest.raises(TypeError, match="X must be an array of numbers, got an object of type Tensor"):
            networks().labels.predict(given)


def test_scipy_sparse_matrices_are_refused_by_name():
    sparse = pytest.importorskip("scipy.sparse")
    for matrix in (sparse.csr_matrix(X), sparse.coo_array(X)):
        with pytest.raises(TypeError, match=r"X must be dense, got a sparse .*toarray"):
            networks().labels.predict(matrix)


def test_parameters_are_checked_in_the_dtype_of_the_network():
    for loss, activation in ((losses.MSE(1e-50), LeakyReLU(1e39)), (losses.Huber(1e39), ELU(1e-50))):
        assert MLP([4, 5, 1], activation, loss, dtype="float64").dtype == np.float64
    assert np.isfinite(MLP([4, 5, 1], LeakyReLU(0), losses.MSE(1e30)).predict(X)).all()
    MLP([4, 3], loss=losses.CrossEntropy(class_weight={1: 1e-50})).fit(X, LABELS, epochs=1)


# The last two losses keep numbers for each output; with them, no size that a machine might really allocate.
@pytest.mark.parametrize(
    ("sizes", "loss"),
    [
        *((sizes, "mse") for sizes in ([10**9, 10**9], [2, 10**7, 10**7, 10**7], [10**14, 1], [3, 10**30])),
        *(([2**62, 2**62], loss) for loss in ("mse", "quantile", losses.BinaryCrossEntropy(2.0))),
        *(([1, 10**15], loss) for loss in ("mse", "quantile", losses.BinaryCrossEntropy(2.0))),
    ],
    ids=str,
)
def test_huge_sizes_are_refused_before_anything_is_allocated(sizes, loss):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"sizes=.*would take [\d,]+ bytes; this machine has"):
            MLP(sizes, loss=loss)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [10**13, 2**62])
def test_huge_batches_are_refused_before_anything_is_allocated(rows):
    with pytest.raises(ValueError, match=rf"{rows} rows.*would take [\d,]+ bytes; this machine has"):
        MLP([4, 3]).plan(batch_size=rows)
    MLP([4, 3]).fit(X, LABELS, epochs=1, batch_size=rows)  # no more than there are


# ---- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [lambda net: net.predict(X), lambda net: net.fit(X, LABELS)])
def test_an_unknown_backend_in_the_environment_is_refused(monkeypatch, call):
    monkeypatch.setenv("FASTMLP_BACKEND", "cuda")
    net = networks().labels
    before = state(net)
    with pytest.raises(ValueError, match=r"FASTMLP_BACKEND must be one of engine, reference, got 'cuda'"):
        call(net)
    assert state(net) == before


@needs_engine
@pytest.mark.parametrize("name", ["sse9", *(set(COMPILED) - set(fastmlp.targets()))])
@pytest.mark.parametrize("call", [lambda net: net.predict(X), lambda net: net.fit(X, LABELS)])
def test_an_unknown_or_unsupported_target_is_refused(monkeypatch, call, name):
    monkeypatch.setenv("FASTMLP_BACKEND", "engine")
    monkeypatch.setenv("FASTMLP_TARGET", name)
    net = networks().labels
    before = state(net)
    why = "is not supported by this CPU" if name in COMPILED else "is unknown"
    with pytest.raises(ValueError, match=f"FASTMLP_TARGET='{name}' {why}; supported here: .*generic"):
        call(net)
    assert state(net) == before


@needs_engine
@pytest.mark.parametrize(
    ("text", "checked"),
    [
        *((text, True) for text in ("1", "true", "yes", "on", "ON", " True ")),
        *((text, False) for text in ("", "0", "false", "no", "off", "Off")),
    ],
)
def test_values_of_fastmlp_check(monkeypatch, text, checked):
    monkeypatch.setenv("FASTMLP_CHECK", text)
    runner = executor(prediction_plan(networks().labels, 1), "engine")
    assert isinstance(runner, LockStepExecutor) == checked
    monkeypatch.delenv("FASTMLP_BACKEND", raising=False)
    assert ("lock step" in fastmlp.show_config()) == checked


@needs_engine
@pytest.mark.parametrize("text", ["maybe", "2", "9" * 5000])
def test_bad_values_of_fastmlp_check_are_refused(monkeypatch, text):
    monkeypatch.setenv("FASTMLP_CHECK", text)
    with pytest.raises(ValueError, match=f"FASTMLP_CHECK must be one of 1, true, yes, on, .*, got '{text[:200]}'"):
        fastmlp.MLP([2, 3], backend="engine").predict([[0.0, 1.0]])


@pytest.mark.parametrize("text", ["many", "9" * 5000])
def test_a_bad_number_of_threads_in_the_environment_is_refused(monkeypatch, text):
    monkeypatch.setattr("fastmlp.threads._num_threads", None)  # what another test may have set comes first
    monkeypatch.setenv("FASTMLP_NUM_THREADS", text)
    with pytest.raises(ValueError, match=rf"FASTMLP_NUM_THREADS must be .* at least 1, got '{text[:200]}'"):
        fastmlp.get_num_threads()


@pytest.mark.parametrize("asked", ["1000000000000", str(10**400)])
def test_the_number_of_threads_is_limited_to_256(monkeypatch, asked):
    monkeypatch.setattr("fastmlp.threads._num_threads", None)
    monkeypatch.setenv("FASTMLP_NUM_THREADS", asked)
    assert fastmlp.get_num_threads() == 256
    assert networks().labels.predict(X).shape == LABELS.shape
