"""Memory layouts that the data of a caller may have, shared by several test files."""

import numpy as np


def unaligned(X):
    memory = np.empty(X.nbytes + 1, np.uint8)[1:]
    shifted = memory.view(X.dtype).reshape(X.shape)
    shifted[:] = X
    return shifted


# name: X in this layout, and whether its rows can be read where they lie.
LAYOUTS = {
    "C": (lambda X: X, True),
    "upside down": (lambda X: np.ascontiguousarray(X[::-1])[::-1], True),
    "with gaps": (lambda X: np.concatenate([X, X], axis=1)[:, : X.shape[1]], True),
    "every row on the same sets of the cache": (
        lambda X: np.pad(X, ((0, 0), (0, -X.shape[1] % (4096 // X.itemsize))))[:, : X.shape[1]],
        False,
    ),
    "Fortran": (np.asfortranarray, False),
    "unaligned": (unaligned, False),
    "another type": (lambda X: X.astype(np.float64 if X.dtype == np.float32 else np.float32), False),
}
