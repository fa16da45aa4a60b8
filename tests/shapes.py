"""Awkward shapes of layers, shared by tests and benchmarks.

Widths lie around the number of lanes (4 to 16) and the tiles (6 to 14 rows, up to 8 vectors); rows around the tiles.
"""

WIDTHS = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100]
ROWS = [1, 2, 5, 6, 7, 13, 33]

# (rows, n_in, n_out) of a layer: every width on every side, and every number of rows, without all combinations.
LAYERS = [
    *((ROWS[i % len(ROWS)], n, WIDTHS[-1 - i]) for i, n in enumerate(WIDTHS)),
    *((rows, 17, 33) for rows in ROWS),
    (4, 2, 4),
    (4, 4, 1),
    (130, 70, 130),  # more rows than a block
    (5, 600, 40),  # more terms than a run of k
    (5, 40, 600),  # and backward
    (700, 9, 18),  # more rows than a run of the batch
    (300, 150, 300),  # and weights in several parts each way
    (1100, 9, 18),  # the same two where runs are long: on AMD's CPUs
    (1100, 604, 300),  # and what is left of a run has its columns of x copied
    (40, 530, 530),  # a gradient too large for the second-level cache
    (64, 100, 100),  # rows that fill vectors: linear_back goes by rows of the batch
    (64, 700, 600),  # that in several runs each way, and weights too large for the second-level cache
    (200, 500, 300),  # such weights, and panels of dy too large for the first-level cache: tiles go along the rows
    (64, 604, 300),  # columns of x that are copied for many panels of dy, the last block narrower than a vector
    (170, 90, 600),  # blocks of such columns, and more of dy than is packed at once
    (9, 700, 600),  # such weights, and linear_back by columns
    (4, 700, 330),  # such weights, and as few rows as low tiles have, by panels that do not come out even
    (33, 100, 1),  # few columns: the gradient of the weights with lanes along their rows
    (130, 257, 2),
    (700, 70, 1),
    (5, 300, 3),
    (64, 150, 4),
    (180, 785, 300),  # a row of weights that is left over when their gradient goes by blocks as high as a tile
    (180, 650, 300),  # two such rows
    (200, 513, 60),  # the same when dx^T goes by runs of rows
]
