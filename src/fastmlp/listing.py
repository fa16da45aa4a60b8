"""The listing of a plan: a line for each op, with its operands and its split over workers, and one per barrier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .opcodes import READS, WRITES

if TYPE_CHECKING:
    from .plan import Op, Plan


def of(plan: Plan) -> str:
    """Format the plan as a table."""
    workers = f"{plan.n_threads} worker" + "s" * (plan.n_threads != 1)
    syncs = plan.team_syncs if any(plan.own) else plan.syncs
    width = max(len(_name(op)) for op in plan.ops)
    lines = [(f"plan of {plan.title}, {plan.dtype.name}, batch {plan.capacity}, {workers}", "split")]
    for i, op in enumerate(plan.ops):
        if syncs[i] and i:
            lines.append(("-", ""))
        kind = _kind(op)
        text = f"{_name(op):<{width}}  {_reads(plan, i)} -> {_writes(plan, i)}" + (f"  {kind}" if kind else "")
        lines.append((text, op.share))
    width = max(len(text) for text, _ in lines) + 4
    return "\n".join(
        "-" * (width - 1) + " barrier" if text == "-" else f"{text:<{width}}{split}" for text, split in lines
    )


def _name(op: Op) -> str:
    return op.kind if op.opcode == "loss" else op.opcode


def _kind(op: Op) -> str:
    if op.opcode == "loss":
        return ""
    if op.opcode == "gather":
        return "" if op.w is None else "standardize"
    if op.kind == "adam" and op.rule.decay:
        return "adamw"
    return f"{op.kind}'" if op.opcode in ("linear_back", "activate_back") else op.kind


def _reads(plan: Plan, i: int) -> str:
    op = plan.ops[i]
    if op.opcode != "gather":
        return " ".join(_operand(op, name, array) for name, array in plan.buffers(i, READS))
    return f"labels[{_rows(op)}]" if op.labels else f"data[{_rows(op)}, {op.n_in}]"


def _writes(plan: Plan, i: int) -> str:
    op = plan.ops[i]
    if op.opcode == "scatter":
        return f"out[{_rows(op)}, {op.n_out}]"
    text = " ".join(_operand(op, name, array) for name, array in plan.buffers(i, WRITES))
    if op.opcode == "gather" and any(op.x is other.t for other in plan.ops if other.opcode == "loss"):
        return f"t{text.removeprefix('x')}"  # targets other than class numbers are gathered like inputs
    return text


def _rows(op: Op) -> str:
    """Number of rows of the caller's array, or "n" if it is not bound yet."""
    return "n" if op.data is None else str(len(op.data))


def _operand(op: Op, name: str, array: NDArray[Any]) -> str:
    if name == "w" and op.opcode != "gather":
        bias = f" b[{op.n_out}]" if op.bias else ""
        return f"w[{op.n_in}, {op.n_out}]" + bias
    if name == "row_loss":
        return "loss"
    return f"{name}[{', '.join(map(str, array.shape))}]"
