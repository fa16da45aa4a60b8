"""Types of the compiled executor; see ``_engine.pyx``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import Plan

OPCODES: tuple[str, ...]
SPLITS: dict[str, str]
SOURCES: tuple[str, ...]
ACTIVATIONS: tuple[str, ...]
LOSSES: tuple[str, ...]
OPTIMIZERS: tuple[str, ...]
KINDS: dict[str, tuple[str, ...]]
COMPILER: str

def all_finite(array: NDArray[Any], n_threads: int = 1, target: str | None = None) -> bool: ...
def all_within(array: NDArray[Any], low: float, high: float, n_threads: int = 1) -> bool: ...
def insist_on_workers(insist: bool) -> None: ...
def quick_step(
    engine: Engine,
    x: object,
    y: object,
    lr: float,
    number: int,
    parameters: NDArray[Any],
    before: NDArray[Any],
    low: float,
    high: float,
    n_threads: int,
) -> tuple[float, bool] | None: ...
def reconsider_partners() -> None: ...
def targets(supported: bool = True) -> tuple[str, ...]: ...

class Engine:
    plan: Plan
    target: str
    def __init__(self, plan: Plan, target: str | None = None) -> None: ...
    @property
    def in_place(self) -> bool: ...
    def bind(self, i: int, data: NDArray[Any]) -> None: ...
    def release(self) -> None: ...
    @property
    def measured(self) -> tuple[int, int]: ...
    @property
    def shares(self) -> list[list[float]] | None: ...
    @shares.setter
    def shares(self, both: Sequence[Sequence[float]]) -> None: ...
    def run(
        self,
        order: NDArray[np.int64] | None,
        offsets: NDArray[np.int64],
        lr: NDArray[np.float64] | None = None,
        *,
        weight: NDArray[np.float64] | None = None,
        first_number: int = 0,
        first_op: int = 0,
        last_op: int | None = None,
        n_threads: int = 1,
        far_apart: bool | None = None,
    ) -> NDArray[np.float64]: ...

class RowPredictor:
    partner_rows: int
    most: int
    def __init__(
        self,
        one: Engine | None = None,
        shared: Engine | None = None,
        n_threads: Callable[[], int] | None = None,
        few: Engine | None = None,
        most: int | None = None,
    ) -> None: ...
    def insist(self) -> None: ...
    def __call__(self, x: object) -> NDArray[Any] | None: ...
