"""scikit-learn: one `fit` with warm_start over all epochs of a round, at the same batch."""

import warnings

import cases
import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor


def version():
    return f"scikit-learn {sklearn.__version__}"


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        if case.activation == "gelu":
            raise cases.Unsupported("no gelu")
        if case.dropout:
            raise cases.Unsupported("no dropout")
        warnings.simplefilter("ignore")  # of few epochs, about missing convergence
        self.X, self.y = X, (y.ravel() if y.ndim == 2 else y)
        if case.loss == "binary_cross_entropy":
            self.y = self.y.astype(np.int64)
        kind = MLPRegressor if case.loss == "mse" else MLPClassifier
        self.net = kind(
            hidden_layer_sizes=case.sizes[1:-1],
            activation="logistic" if case.activation == "sigmoid" else case.activation,
            solver=case.optimizer,
            alpha=0.0,
            batch_size=case.batch or 32,
            learning_rate_init=case.rate * (2 if case.loss == "mse" else 1),  # its squared error is halved
            momentum=cases.MOMENTUM,
            nesterovs_momentum=False,
            random_state=0,
            tol=0.0,
        )
        classes = {} if case.loss == "mse" else {"classes": np.arange(max(2, case.sizes[-1]))}
        self.net.partial_fit(X[:1], self.y[:1], **classes)
        self.net.coefs_ = [W.copy() for W, _ in weights]
        self.net.intercepts_ = [b.copy() for _, b in weights]
        self.net.set_params(warm_start=True)

    def train(self, epochs, shuffle):
        self.net.set_params(max_iter=epochs, n_iter_no_change=epochs + 1, shuffle=shuffle)
        self.net.fit(self.X, self.y)

    def weights(self):
        return list(zip(self.net.coefs_, self.net.intercepts_, strict=True))

    def predict(self, X):
        return self.net.predict_proba(X)
