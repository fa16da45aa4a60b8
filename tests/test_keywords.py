"""Unknown keywords and unknown names: the error lists the known ones and says what to write instead."""

import inspect
from dataclasses import fields

import pytest

import fastmlp
from fastmlp.options import FitSettings, Options, RestartSettings

X, Y = fastmlp.datasets.xor()
CALLS = {
    "MLP.fit()": lambda **more: fastmlp.MLP([2, 2]).fit(X, Y, **more),
    "MLP()": lambda **more: fastmlp.MLP([2, 2], **more),
    "Trainer()": lambda **more: fastmlp.Trainer(fastmlp.MLP([2, 2]), **more),
    "Trainer.fit()": lambda **more: fastmlp.Trainer(fastmlp.MLP([2, 2])).fit(X, Y, **more),
    "fit_restarts()": lambda **more: fastmlp.fit_restarts(lambda seed: fastmlp.MLP([2, 2], seed=seed), X, Y, **more),
    "MLP.evaluate()": lambda **more: fastmlp.MLP([2, 2]).evaluate(X, Y, **more),
    "SGD()": fastmlp.SGD,
    "Adam()": fastmlp.Adam,
    "LBFGS()": fastmlp.LBFGS,
    "Cosine()": fastmlp.schedules.Cosine,
    "OneCycle()": fastmlp.schedules.OneCycle,
    "Quantile()": fastmlp.losses.Quantile,
    "LeakyReLU()": fastmlp.activations.LeakyReLU,
    "EarlyStopping()": fastmlp.EarlyStopping,
}
LEARNING_RATE = "learning_rate belongs to the optimizer, as in net.fit(X, y, optimizer=fastmlp.SGD(learning_rate=...))"
HINTS = [
    *(
        ("MLP.fit()", name, "write epochs; known: X, y, optimizer, epochs")
        for name in ("epoch", "n_epochs", "max_iter")
    ),
    ("MLP.fit()", "validation_data", "write validation=(X, y)"),
    ("MLP.fit()", "validation_split", "write validation_fraction"),
    ("MLP.fit()", "verbose", "write callbacks=[fastmlp.callbacks.ProgressBar()]"),
    ("MLP.fit()", "random_state", "seed belongs to the network, as in fastmlp.MLP(sizes, seed=...)"),
    ("MLP.fit()", "lr", LEARNING_RATE),
    ("MLP.fit()", "learning_rate", LEARNING_RATE),
    ("MLP.fit()", "momentum", "optimizer=fastmlp.SGD(momentum=...)"),
    ("MLP.fit()", "betas", "optimizer=fastmlp.Adam(betas=...)"),
    ("MLP.fit()", "batchsize", "did you mean batch_size?"),
    ("MLP.fit()", "quite_another", "'quite_another'; known: X, y, optimizer, epochs, batch_size"),
    ("MLP()", "lr", LEARNING_RATE),
    ("MLP()", "optimizer", "optimizer belongs to fit, as in net.fit(X, y, optimizer=...)"),
    ("MLP()", "random_state", "write seed; known: sizes, activation"),
    ("MLP()", "hidden_layer_sizes", "write sizes=[inputs, *hidden, outputs]"),
    ("Trainer()", "epochs", "epochs belongs to fit"),
    ("Trainer.fit()", "n_epochs", "write epochs"),
    ("fit_restarts()", "n_restarts", "did you mean restarts?"),
    ("fit_restarts()", "lr", LEARNING_RATE),
    ("SGD()", "lr", "write learning_rate; known: learning_rate, momentum"),
    ("Adam()", "beta", "did you mean betas?"),
    ("LBFGS()", "learning_rate", "'learning_rate': learning_rate belongs to other optimizers, as in net.fit(X, y, opt"),
    ("MLP.evaluate()", "batch_size", "batch_size belongs to fit"),
    ("Cosine()", "T_max", "'T_max'; known: warmup, restarts, end, learning_rate"),
    ("OneCycle()", "max_lr", "write learning_rate; known: warmup"),
    ("Quantile()", "quantiles", "write q; known: q"),
    ("LeakyReLU()", "alpha", "'alpha'; known: slope"),
    ("EarlyStopping()", "restore_best_weights", "did you mean restore_best?"),
]


@pytest.mark.parametrize(("call", "name", "hint"), HINTS)
def test_an_unknown_keyword_is_explained(call, name, hint):
    with pytest.raises(TypeError) as caught:
        CALLS[call](**{name: 1})
    assert str(caught.value).startswith(f"{call} got an unexpected keyword argument '{name}'")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("get", "name", "meant"),
    [
        (fastmlp.activations.get, "ReLU", "relu"),
        (fastmlp.activations.get, "LeakyReLU", "leaky_relu"),
        (fastmlp.losses.get, "mean_squared_error", "mse"),
        (fastmlp.losses.get, "bce", "binary_cross_entropy"),
        (fastmlp.losses.get, "crossentropy", "cross_entropy"),
        (fastmlp.optimizers.get, "Adam", "adam"),
        (fastmlp.schedules.get, "OneCycle", "one_cycle"),
        (fastmlp.initializers.get, "xavier", "glorot_uniform"),
        (fastmlp.metrics.get, "auc", "roc_auc"),
    ],
)
def test_an_unknown_name_is_explained(get, name, meant):
    hint = rf"\(did you mean '{meant}'\?\)"
    with pytest.raises(ValueError, match=rf"unknown [a-z]+ '{name}' {hint}; known: .*\b{meant}\b"):
        get(name)


@pytest.mark.parametrize("name", ["mse", "zzz", ""])
def test_an_unknown_name_that_looks_like_none_gets_no_guess(name):
    with pytest.raises(ValueError, match=f"^unknown optimizer '{name}'; known: "):
        fastmlp.optimizers.get(name)


def test_the_settings_of_fit_are_those_of_trainer():
    fit = inspect.signature(fastmlp.Trainer.fit).parameters
    assert set(FitSettings.__annotations__) == {field.name for field in fields(Options)} | set(fit) - {"self", "X", "y"}


def test_the_settings_of_fit_restarts_are_those_of_fit():
    own = inspect.signature(fastmlp.fit_restarts).parameters
    assert set(RestartSettings.__annotations__) == {*FitSettings.__annotations__, "optimizer"} - set(own)


FUNCTIONS = [fastmlp.SGD, fastmlp.MLP, fastmlp.Trainer, fastmlp.fit_restarts, fastmlp.losses.MSE]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signatures_are_preserved(function):
    assert "args" not in inspect.signature(function).parameters
