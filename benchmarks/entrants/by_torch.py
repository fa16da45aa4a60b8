"""PyTorch, eager: functional layers, the faster of its fused and foreach optimizers."""

import time

import cases
import torch
import torch.nn.functional as F

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu}


def version():
    return f"PyTorch {torch.__version__}"


def forward(case, params, x, training=False):
    """Logits (or values); params are W, b, W, b, ... with W as `F.linear` wants it, (n_out, n_in)."""
    for i in range(0, len(params), 2):
        x = F.linear(x, params[i], params[i + 1])
        if i + 2 < len(params):
            x = ACTIVATIONS[case.activation](x)
            x = F.dropout(x, case.dropout) if training and case.dropout else x
    return x


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
}


def probabilities(case, y):
    return torch.softmax(y, 1) if case.loss == "cross_entropy" else torch.sigmoid(y)


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        torch.set_num_threads(threads)
        self.case, self.X, self.y = case, torch.from_numpy(X), torch.from_numpy(y)
        self.start(weights, "fused")
        if case.batch:
            times = {kind: self.seconds(weights, kind) for kind in ("fused", "foreach")}
            self.start(weights, min(times, key=times.get))

    def start(self, weights, kind):
        """Parameters at their initial values, and a new optimizer."""
        arrays = [torch.from_numpy(a.T.copy()) for pair in weights for a in pair]
        self.params = [a.requires_grad_(self.case.batch > 0) for a in arrays]
        if self.case.batch and self.case.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.params, lr=self.case.rate, **{kind: True})
        elif self.case.batch:
            self.optimizer = torch.optim.SGD(self.params, lr=self.case.rate, momentum=cases.MOMENTUM, **{kind: True})

    def seconds(self, weights, kind):
        """The best step of about a tenth of a second."""
        self.start(weights, kind)
        x, t, best, stop = self.X[: self.case.batch], self.y[: self.case.batch], float("inf"), time.perf_counter() + 0.1
        for i in range(300):
            before = time.perf_counter()
            self.step(x, t)
            best = min(best, time.perf_counter() - before)
            if i > 1 and time.perf_counter() > stop:
                break
        return best

    def step(self, x, t):
        self.optimizer.zero_grad(set_to_none=True)
        LOSSES[self.case.loss](forward(self.case, self.params, x, training=True), t).backward()
        self.optimizer.step()

    def train(self, epochs, shuffle):
        n = len(self.X)
        for _ in range(epochs):
            if n == self.case.batch:
                self.step(self.X, self.y)
                continue
            order = torch.randperm(n) if shuffle else torch.arange(n)
            for rows in order.split(self.case.batch):
                self.step(self.X.index_select(0, rows), self.y.index_select(0, rows))

    def weights(self):
        arrays = [p.detach().numpy().T for p in self.params]
        return list(zip(arrays[::2], arrays[1::2], strict=True))

    @torch.inference_mode()
    def predict(self, X):
        return probabilities(self.case, forward(self.case, self.params, torch.from_numpy(X))).numpy()
