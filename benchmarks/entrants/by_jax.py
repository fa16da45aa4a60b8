"""JAX: one jitted lax.scan over a whole epoch (a thousand steps where an epoch is shorter), buffers donated."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
jax.config.update("jax_default_prng_impl", "unsafe_rbg")  # the faster one, for dropout


def version():
    return f"JAX {jax.__version__}"


def forward(case, params, x, key=None):
    """Logits (or values); with a key, outputs of hidden layers are dropped."""
    for i, (W, b) in enumerate(params):
        x = x @ W + b
        if i + 1 < len(params):
            x = ACTIVATIONS[case.activation](x)
            if key is not None:
                key, sub = jax.random.split(key)
                x = jnp.where(jax.random.bernoulli(sub, 1 - case.dropout, x.shape), x / (1 - case.dropout), 0)
    return x


def loss_of(case, params, x, t, key):
    y = forward(case, params, x, key)
    if case.loss == "mse":
        return ((y - t) ** 2).mean()
    if case.loss == "binary_cross_entropy":
        return (jax.nn.softplus(y) - y * t).mean()
    return (jax.nn.logsumexp(y, axis=1) - jnp.take_along_axis(y, t[:, None], axis=1)[:, 0]).mean()


def updated(case, params, state, gradients):
    """SGD with momentum, or Adam: parameters and state after a step."""
    s1, s2, count = state
    count, tree = count + 1, jax.tree.map
    if case.optimizer == "sgd":
        s1 = tree(lambda s, g: cases.MOMENTUM * s + g, s1, gradients)
        return tree(lambda p, s: p - case.rate * s, params, s1), (s1, s2, count)
    s1 = tree(lambda s, g: 0.9 * s + 0.1 * g, s1, gradients)
    s2 = tree(lambda s, g: 0.999 * s + 0.001 * g * g, s2, gradients)
    rate, scale = case.rate / (1 - 0.9**count), jax.lax.rsqrt(1 - 0.999**count)
    return tree(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * scale + 1e-8), params, s1, s2), (s1, s2, count)


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        self.case, self.n, self.rng = case, len(X), np.random.default_rng(3)
        self.params = [(jnp.array(W), jnp.array(b)) for W, b in weights]
        if not case.batch:
            outputs = functools.partial(jax.nn.softmax, axis=1) if case.loss == "cross_entropy" else jax.nn.sigmoid
            self.run = jax.jit(lambda params, x: outputs(forward(case, params, x)))
            return
        self.X, self.y = jnp.array(X), jnp.array(y if y.ndim == 2 else y.astype(np.int32))
        zeros = jax.tree.map(jnp.zeros_like, self.params)
        second = jax.tree.map(jnp.zeros_like, self.params) if case.optimizer == "adam" else None
        self.state = (zeros, second, jnp.zeros((), case.dtype))
        self.key = jax.random.key(3)
        self.chunk = -(-1000 // case.steps) if case.steps < 1000 and case.flops < 1e8 else 1
        self.scan = jax.jit(self.epochs, donate_argnums=(0, 1), static_argnums=(6,))

    def epochs(self, params, state, key, X, y, order, steps):
        """All steps of `order` [steps, batch] (None: the whole data, repeatedly)."""
        case, gradient = self.case, jax.grad(functools.partial(loss_of, self.case))

        def step(carry, rows):
            params, state, key = carry
            sub = None
            if case.dropout:
                key, sub = jax.random.split(key)
            x, t = (X, y) if rows is None else (X[rows], y[rows])
            return (*updated(case, params, state, gradient(params, x, t, sub)), key), None

        return jax.lax.scan(step, (params, state, key), order, length=steps)[0]

    def train(self, epochs, shuffle):
        chunk = min(self.chunk, epochs)
        for _ in range(epochs // chunk):
            order, steps = None, chunk * (self.n // self.case.batch)
            if self.n > self.case.batch:
                order = np.broadcast_to(np.arange(self.n, dtype=np.int32), (chunk, self.n))
                order = self.rng.permuted(order, axis=1) if shuffle else order
                order = order.reshape(steps, self.case.batch)
            result = self.scan(self.params, self.state, self.key, self.X, self.y, order, steps)
            self.params, self.state, self.key = result
        jax.block_until_ready(self.params)

    def weights(self):
        return [(np.asarray(W), np.asarray(b)) for W, b in self.params]

    def predict(self, X):
        return np.asarray(self.run(self.params, X))
