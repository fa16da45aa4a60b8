"""fastmlp as a user calls it: `Trainer.fit` over whole epochs, `predict_proba` on an array."""

import cases

import fastmlp
from fastmlp import runtime


def version():
    return f"fastmlp {fastmlp.__version__} ({runtime.target() or 'reference'})"


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        fastmlp.set_num_threads(threads)
        self.case, self.X, self.y = case, X, y
        self.net = fastmlp.MLP(case.sizes, case.activation, case.loss, weights=weights, dtype=case.dtype)
        adam, sgd = fastmlp.Adam(case.rate), fastmlp.SGD(case.rate, momentum=cases.MOMENTUM)
        options = {"dropout": case.dropout} if case.dropout else {}
        self.trainer = fastmlp.Trainer(self.net, adam if case.optimizer == "adam" else sgd, **options)

    def train(self, epochs, shuffle):
        self.trainer.fit(self.X, self.y, epochs=epochs, batch_size=self.case.batch, shuffle=shuffle)

    def weights(self):
        return list(zip(self.net.weights, self.net.biases, strict=True))

    def predict(self, X):
        return self.net.predict_proba(X)
