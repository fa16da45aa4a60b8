"""NumPy by hand: no allocation in a step, all parameters in one flat vector so that an update is a few calls."""

import cases
import numpy as np

try:
    from scipy.special import erf
except ImportError:
    erf = None


def version():
    return f"NumPy {np.__version__}"


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        if case.activation == "gelu" and erf is None:
            raise cases.Unsupported("erf needs SciPy")
        self.case, self.X, self.y, self.rng = case, X, y, np.random.default_rng(3)
        self.size = sum((n_in + 1) * n_out for n_in, n_out in case.layers)
        self.flat, self.W, self.b = self.views()
        self.gradient, self.dW, self.db = self.views()
        self.s1, self.s2, self.scratch, self.t = *(np.zeros_like(self.flat) for _ in range(3)), 0
        for W, b, (W0, b0) in zip(self.W, self.b, weights, strict=True):
            W[:], b[:] = W0, b0
        rows = case.batch or len(X)
        self.a = [np.empty((rows, n), case.dtype) for n in case.sizes]
        self.d = [np.empty((rows, n), case.dtype) for n in case.sizes[1:]]
        self.z = [np.empty((rows, n), case.dtype) for n in case.sizes[1:]]
        self.mask = [np.empty((rows, n), case.dtype) for n in case.sizes[1:]]
        self.rows, self.t_batch = np.arange(rows), np.empty((rows, *y.shape[1:]), y.dtype)

    def views(self):
        """A flat vector, and the weights and biases in it."""
        flat, W, b, start = np.zeros(self.size, self.case.dtype), [], [], 0
        for n_in, n_out in self.case.layers:
            W.append(flat[start : start + n_in * n_out].reshape(n_in, n_out))
            b.append(flat[start + n_in * n_out : start + (n_in + 1) * n_out])
            start += (n_in + 1) * n_out
        return flat, W, b

    def activate(self, i, a):
        kind, keep = self.case.activation, self.case.dropout
        if kind == "gelu":
            self.z[i][: len(a)] = a
            np.multiply(a, 0.5**0.5, out=a)
            erf(a, out=a)
            a += 1
            a *= self.z[i][: len(a)]
            a *= 0.5
        elif kind == "relu":
            np.maximum(a, 0, out=a)
        elif kind == "tanh":
            np.tanh(a, out=a)
        else:
            np.negative(a, out=a)
            np.exp(a, out=a)
            a += 1
            np.reciprocal(a, out=a)
        if keep and self.case.batch:
            self.rng.random(out=self.mask[i], dtype=a.dtype)
            np.greater_equal(self.mask[i], keep, out=self.mask[i], casting="unsafe")
            self.mask[i] *= 1 / (1 - keep)
            a *= self.mask[i]

    def activate_back(self, i, d):
        """d times the derivative at the output (for gelu, at the input) of layer i."""
        kind, a, work = self.case.activation, self.a[i + 1], self.z[i]
        if kind == "relu":
            d *= np.greater(a, 0)
        elif kind == "gelu":
            z = work
            slope = erf(z * 0.5**0.5)
            slope += 1
            slope *= 0.5
            z_phi = np.square(z)
            z_phi *= -0.5
            np.exp(z_phi, out=z_phi)
            z_phi *= z
            z_phi *= (2 * np.pi) ** -0.5
            slope += z_phi
            d *= slope
        else:
            np.multiply(a, a, out=work)
            np.subtract(1 if kind == "tanh" else a, work, out=work)
            d *= work
        if self.case.dropout:
            d *= self.mask[i]

    def forward(self, a):
        last = len(self.W) - 1
        for i, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            out = self.a[i + 1][: len(a)]
            a = np.matmul(a, W, out=out)
            a += b
            if i < last:
                self.activate(i, a)
        return a

    def outputs(self, a):
        """Probabilities, in place."""
        if self.case.loss == "cross_entropy":
            a -= a.max(axis=1, keepdims=True)
            np.exp(a, out=a)
            a /= a.sum(axis=1, keepdims=True)
        elif self.case.loss == "binary_cross_entropy":
            np.negative(a, out=a)
            np.exp(a, out=a)
            a += 1
            np.reciprocal(a, out=a)
        return a

    def step(self, x, t):
        d = self.outputs(self.forward(x))
        if self.case.loss == "cross_entropy":
            d[self.rows, t] -= 1
        else:
            d -= t
        d *= (2 if self.case.loss == "mse" else 1) / d.size * (d.shape[1] if t.ndim == 1 else 1)
        for i in range(len(self.W) - 1, -1, -1):
            below = self.a[i] if i else x
            np.matmul(below.T, d, out=self.dW[i])
            d.sum(axis=0, out=self.db[i])
            if i:
                d = np.matmul(d, self.W[i].T, out=self.d[i - 1])
                self.activate_back(i - 1, d)
        self.adam() if self.case.optimizer == "adam" else self.sgd()

    def sgd(self):
        self.s1 *= cases.MOMENTUM
        self.s1 += self.gradient
        np.multiply(self.s1, self.case.rate, out=self.scratch)
        self.flat -= self.scratch

    def adam(self, beta1=0.9, beta2=0.999, eps=1e-8):
        self.t += 1
        g, work = self.gradient, self.scratch
        self.s1 *= beta1
        np.multiply(g, 1 - beta1, out=work)
        self.s1 += work
        self.s2 *= beta2
        np.square(g, out=work)
        work *= 1 - beta2
        self.s2 += work
        np.sqrt(self.s2, out=work)
        work *= (1 - beta2**self.t) ** -0.5
        work += eps
        np.divide(self.s1, work, out=work)
        work *= self.case.rate / (1 - beta1**self.t)
        self.flat -= work

    def train(self, epochs, shuffle):
        n, batch = len(self.X), self.case.batch
        for _ in range(epochs):
            if n == batch:
                self.step(self.X, self.y)
                continue
            order = self.rng.permutation(n) if shuffle else np.arange(n)
            for start in range(0, n, batch):
                rows = order[start : start + batch]
                np.take(self.X, rows, axis=0, out=self.a[0], mode="clip")
                np.take(self.y, rows, axis=0, out=self.t_batch, mode="clip")
                self.step(self.a[0], self.t_batch)

    def weights(self):
        return list(zip(self.W, self.b, strict=True))

    def predict(self, X):
        return self.outputs(self.forward(X)).copy()
