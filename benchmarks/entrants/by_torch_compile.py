"""PyTorch, compiled: the whole step, its gradient and update included, is one torch.compile graph."""

import cases
import torch

from .by_torch import LOSSES, forward, probabilities
from .by_torch import Entrant as Eager
from .by_torch import version as version


class Entrant(Eager):
    def __init__(self, case, X, y, weights, threads):
        torch.set_num_threads(threads)
        torch._dynamo.reset()
        self.case, self.X, self.y = case, torch.from_numpy(X), torch.from_numpy(y)
        self.params = [torch.from_numpy(a.T.copy()) for pair in weights for a in pair]
        if not case.batch:
            self.run = torch.compile(lambda x: probabilities(case, forward(case, self.params, x)), fullgraph=True)
            return
        self.s1 = [torch.zeros_like(p) for p in self.params]
        self.s2 = [torch.zeros_like(p) for p in self.params] if case.optimizer == "adam" else []
        self.count = torch.zeros((), dtype=self.params[0].dtype)
        self.compiled = torch.compile(self.whole_step, fullgraph=True, dynamic=False)

    def whole_step(self, params, s1, s2, count, x, t):
        case = self.case
        loss = LOSSES[case.loss]
        gradients = torch.func.grad(lambda p: loss(forward(case, p, x, training=True), t))(params)
        if case.optimizer == "adam":
            count.add_(1)
            scale1, scale2 = 1 - 0.9**count, (1 - 0.999**count).sqrt()
            for p, g, m, v in zip(params, gradients, s1, s2, strict=True):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                p.sub_(case.rate / scale1 * m / (v.sqrt() / scale2 + 1e-8))
            return
        for p, g, v in zip(params, gradients, s1, strict=True):
            v.mul_(cases.MOMENTUM).add_(g)
            p.sub_(v, alpha=case.rate)

    def step(self, x, t):
        self.compiled(self.params, self.s1, self.s2, self.count, x, t)

    @torch.inference_mode()
    def predict(self, X):
        return self.run(torch.from_numpy(X)).numpy()
