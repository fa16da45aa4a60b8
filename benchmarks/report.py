"""The results of a contest as one Markdown table and one plot."""

import datetime
import platform

import roofline
from contest import disturbed_share

NAMES = {
    "by_numpy": "NumPy by hand",
    "by_sklearn": "scikit-learn",
    "by_torch": "PyTorch",
    "by_torch_compile": "PyTorch compiled",
    "by_jax": "JAX scan",
    "by_onnxruntime": "onnxruntime",
}


def time_text(seconds):
    """Three digits (two below 1), in microseconds or milliseconds."""
    value, unit = (seconds * 1e6, "us") if seconds < 9.995e-3 else (seconds * 1e3, "ms")
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def cell(row, who, missing):
    if who in missing:
        return "not installed" if "No module" in missing[who] else "failed"
    if who in row.seconds:
        return f"{time_text(row.median(who))} ({row.ratio(who)[0]:.2f}x)"
    return {"predicts only": "-"}.get(row.notes.get(who), "no: " + row.notes.get(who, "not timed").split(";")[0][:40])


def line(row, rivals, missing, top):
    case = row.case
    if "ours" not in row.seconds:
        return [case.title, "", f"FAILED: {row.notes.get('ours', '')}", *[""] * (4 + len(rivals))]
    limit = case.flops / (top[case.dtype] * 1e9)
    single = "-"
    if "ours, 1 thread" in row.seconds:
        single = f"{time_text(row.median('ours, 1 thread'))} ({row.ratio('ours, 1 thread')[0]:.2f}x)"
    best, verdict = row.fastest(), "-"
    if best:
        ratio, low, high = row.ratio(best)
        verdict = f"**{ratio:.2f}x** [{low:.2f}, {high:.2f}] {NAMES.get(best, best)}"
    share = f"{row.share_of_peak():.0f}%" if case.flops > 1e5 else "-"
    times = [cell(row, who, missing) for who in rivals]
    return [case.title, time_text(limit), time_text(row.median("ours")), share, single, *times, verdict]


def best_peaks(rows):
    """The best FMA rate of the run for each type, in GFLOP/s."""
    found = {}
    for row in rows:
        found[row.case.dtype] = max([found.get(row.case.dtype, 0.0), *row.peak])
    return {dtype: rate for dtype, rate in found.items() if rate}


def markdown(rows, contest, rivals):
    head = ["network, batch", "limit", "fastmlp", "of peak", "fastmlp, 1 thread"]
    head += [NAMES.get(who, who) for who in rivals] + ["against the fastest"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    top = best_peaks(rows)
    lines += [line(row, rivals, contest.missing, top) for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n\n" + footer(rows, contest, rivals)


def footer(rows, contest, rivals):
    versions = ", ".join(dict.fromkeys(text for who, text in contest.versions.items() if who in ("ours", *rivals)))
    peaks = ", ".join(f"{dtype} {rate:.0f}" for dtype, rate in best_peaks(rows).items())
    disturbed, turns = disturbed_share(rows)
    text = [
        f"{datetime.date.today()}, {roofline.cpu_name()}, {roofline.usable_cpus()} CPUs, {platform.system()}, Python "
        f"{platform.python_version()}; {contest.threads} thread{'s' * (contest.threads > 1)} ({versions}).",
        f"Best FMA peak seen, GFLOP/s: {peaks or 'none'}; *limit* is the FLOPs of a step (6 n_in n_out per row and "
        "layer, 4 in the first; 2 for predictions) at that peak, *of peak* refers to the peak around each round.",
        "Times are medians of interleaved rounds, for one training step or one call; in brackets the median of the "
        "rounds' ratios to fastmlp, and its 95% interval. Rivals run with their best number of threads.",
        "Before each turn the FMA loop ran on all cores until it reached 90% of its best rate, for at most a second; "
        f"in {contest.unsettled} of {contest.turns} turns it did not. No round was omitted; in {disturbed} of {turns} "
        "timed turns the system took a core away at least once.",
    ]
    absent = [f"{NAMES.get(who, who)} ({why})" for who, why in contest.missing.items() if who in rivals]
    text += [f"Missing on this machine: {', '.join(absent)}."] if absent else []
    for row in rows:
        known = {w: why for w, why in row.notes.items() if w in (*rivals, "ours") and why != "predicts only"}
        text += [f"{row.case.title}: {NAMES.get(w, w)}: {why}." for w, why in known.items()]
    return "\n".join(f"- {sentence}" for sentence in text) + "\n"


def plot(rows, rivals, path):
    """Times relative to fastmlp, one group per row, on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if "ours" in row.seconds]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.45 * len(rows)), layout="constrained")
    for k, who in enumerate(rivals):
        points = [(i, row.ratio(who)[0]) for i, row in enumerate(rows) if who in row.seconds]
        if points:
            places, ratios = zip(*points, strict=True)
            axes.scatter(ratios, places, marker="os^Dvx"[k % 6], label=NAMES.get(who, who), zorder=2)
    axes.axvline(1, color="black", lw=1, label="fastmlp")
    axes.set(xscale="log", yticks=range(len(rows)), yticklabels=[row.case.title for row in rows])
    axes.set_xlabel("time, as a multiple of fastmlp's (log scale)")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, which="both")
    figure.legend(fontsize="small", loc="outside right upper")
    figure.savefig(path, dpi=120)
    plt.close(figure)
