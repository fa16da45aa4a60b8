"""The operations of plans: what each splits over the workers, which buffers it reads and which it writes."""

# What each op splits over the workers: rows of the batch, or rows of the parameters.
SPLITS = {
    "gather": "rows",
    "linear": "rows",
    "activate": "rows",
    "activate_back": "rows",
    "loss": "rows",
    "linear_back": "rows",
    "dropout": "rows",
    "scatter": "rows",
    "linear_grad": "params",
    "update": "params",
    "linear_update": "params",
    "square_sum": "params",
    "average": "params",
    "max_norm": "params",
}

# Which buffers an op reads.
READS = {
    "gather": ("data", "w"),
    "linear": ("x", "w"),
    "activate": ("x",),
    "activate_back": ("dy", "y", "z"),
    "loss": ("y", "t"),
    "linear_back": ("dy", "w", "y", "z"),
    "dropout": ("x",),
    "scatter": ("y",),
    "linear_grad": ("x", "dy"),
    "update": ("g", "part"),
    "linear_update": ("x", "dy"),
    "square_sum": ("g",),
    "average": ("w",),
    "max_norm": (),
}

# Which buffers an op writes.
WRITES = {
    "gather": ("x", "t"),
    "linear": ("z", "y"),
    "activate": ("y",),
    "activate_back": ("dx",),
    "loss": ("dy", "row_loss"),
    "linear_back": ("dx",),
    "dropout": ("y",),
    "scatter": ("data",),
    "linear_grad": ("g",),
    "update": ("w", "s1", "s2"),
    "linear_update": ("w", "s1", "s2"),
    "square_sum": ("part",),
    "average": ("aux",),
    "max_norm": ("w",),
}
