"""The fair part of the comparison: processes, verification, interleaved rounds, ratios with their uncertainty.

Every package runs in its own process, once for each number of threads it may use; the fastest takes part. In a round
each has one turn, in random order; ratios are taken within rounds, so that a noisy neighbour affects both sides. Before
a turn all cores run the FMA loop until it reaches full speed: a virtual machine's idle cores were seen to share one
real core for a while. No round is discarded; the report tells how often that failed, and how often the system took a
core away.
"""

import json
import os
import random
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cases import environment
from roofline import peak

HERE = Path(__file__).parent
TIMEOUT = 900  # seconds for an answer: torch.compile may build C++ first
PAUSE = 0.01  # between turns, for the last one's threads to stop spinning
SETTLED = 0.9  # of the best FMA rate, from which all cores are assumed to be available
PATIENCE = 1.0  # seconds to wait for that
AGREE = 2e-3  # of the change of the loss in the steps that are compared
ROUGHLY = 0.1  # with dropout, whose masks differ


class Process:
    """A worker.py process, driven by lines of JSON."""

    def __init__(self, entrant, threads):
        self.entrant, self.threads = entrant, threads
        n = str(threads)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTMLP_NUM_THREADS", "NPROC")
        env = environment(**dict.fromkeys(names, n))
        if threads == 1:
            env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + env.get("XLA_FLAGS", "")
        self.log = open(os.environ.get("RIVALS_LOG") or os.devnull, "a")  # noqa: SIM115
        command = [sys.executable, str(HERE / "worker.py")]
        self.pipe = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env
        )
        self.answer = self.ask("hello", entrant=entrant, threads=threads)

    def ask(self, do, **command):
        """The answer; {"error"} if the process died or timed out, and then it is stopped."""
        if self.pipe.poll() is not None:
            return {"error": "its process has ended"}
        try:
            self.pipe.stdin.write(json.dumps({"do": do, **command}) + "\n")
            self.pipe.stdin.flush()
        except BrokenPipeError:
            return {"error": "its process has ended"}
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.pipe.stdout, selectors.EVENT_READ)
            if not waiting.select(TIMEOUT):
                self.end()
                return {"error": f"no answer in {TIMEOUT} s"}
        line = self.pipe.stdout.readline()
        return json.loads(line) if line else {"error": f"its process died with code {self.pipe.wait()}"}

    def end(self):
        self.pipe.kill()
        self.pipe.communicate()
        self.log.close()


@dataclass
class Row:
    """What was measured for one case: seconds of a step (or call) by participant and round."""

    case: object
    seconds: dict[str, list[float]] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)  # the best number of threads
    peak: list[float] = field(default_factory=list)  # GFLOP/s around our turn of the round
    notes: dict[str, str] = field(default_factory=dict)  # why an entrant has no time
    disturbed: int = 0  # turns in which the system took the core away

    def median(self, who):
        return float(np.median(self.seconds[who]))

    def ratio(self, who, to="ours"):
        """How many times longer `who` takes: median of the rounds' ratios, and its 95% interval by bootstrap."""
        ratios = np.array(self.seconds[who]) / np.array(self.seconds[to])
        picks = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
        low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
        return float(np.median(ratios)), float(low), float(high)

    def share_of_peak(self):
        """Our rate, in percent of the peak measured around each round."""
        rates = self.case.flops / np.array(self.seconds["ours"]) * 1e-9
        return float(np.median(100 * rates / np.array(self.peak)))

    def fastest(self):
        """The rival with the smallest median, or None."""
        rivals = [who for who in self.seconds if not who.startswith("ours")]
        return min(rivals, key=self.median, default=None)


class Contest:
    """All processes of a run, and the state that its rows share."""

    def __init__(self, rivals, threads, rounds, target):
        self.threads, self.rounds, self.target = threads, rounds, target
        self.counts = sorted({1, threads})
        self.best_rate, self.turns, self.unsettled = 0.0, 0, 0
        self.processes, self.versions, self.missing = {}, {}, {}
        for who in dict.fromkeys(["ours", "by_numpy", *rivals]):
            self.start(who, self.counts)
        if "ours" in self.missing:
            self.close()
            raise RuntimeError(f"fastmlp does not start: {self.missing['ours']}")
        self.rivals = [who for who in rivals if who not in self.missing]

    def start(self, who, counts):
        for n in counts:
            process = Process(who, n)
            if "version" not in process.answer:
                self.missing[who] = process.answer.get("missing") or process.answer["error"]
                process.end()
                return
            self.versions[who], self.processes[who, n] = process.answer["version"], process

    def close(self):
        for process in self.processes.values():
            process.end()

    def run(self, case):
        """Verify, choose each entrant's best number of threads, time."""
        row = Row(case)
        entered = self.verified(row, ["ours", *self.rivals])
        if "ours" not in entered:
            return row
        playing = {(who, n): self.ready(row, who, n) for who in entered for n in self.counts}
        playing = {key: count for key, count in playing.items() if count}
        playing = self.best_only(row, playing, self.trial(playing))
        for who, _ in playing:
            row.notes.pop(who, None)
        self.play(row, playing)
        for process in self.processes.values():
            process.ask("close")
        return row

    def verified(self, row, entrants):
        """The entrants whose results agree with NumPy's (or ours, where NumPy has none)."""
        expected, good = None, []
        for who in dict.fromkeys(["by_numpy", *entrants]):
            answer = self.processes[who, self.threads].ask("verify", case=row.case.name)
            why = answer.get("unsupported") or answer.get("error")
            if not why and expected is not None:
                why = disagreement(answer, expected)
            if why:
                row.notes[who] = why
                continue
            expected = expected or answer
            good += [who] * (who in entrants)
        return good

    def ready(self, row, who, n):
        """How many epochs or calls fill a turn, found by doing them; None where it fails."""
        process, count = self.processes[who, n], 1
        answer = process.ask("open", case=row.case.name)
        if "error" not in answer:
            answer = process.ask("time", count=1)  # compilation on first use happens here
        for _ in range(12):
            self.settle()  # a disturbed call would make turns too short
            answer = process.ask("time", count=count) if "error" not in answer else answer
            if "error" in answer:
                row.notes[who] = answer["error"]
                return None
            if answer["seconds"] >= 0.8 * self.target:
                break
            done = answer["count"] // row.case.steps if row.case.batch else answer["count"]
            count = min(20 * done, 1 + int(done * self.target / answer["seconds"]))
        return count

    def turn(self, key, count):
        """Seconds of a step (or call), and the number of involuntary context switches; None if it failed."""
        self.settle()
        answer = self.processes[key].ask("time", count=count)
        return (answer["seconds"] / answer["count"], answer["switches"]) if "seconds" in answer else None

    def settle(self):
        """Wait until all cores are at full speed, for at most `PATIENCE` seconds."""
        time.sleep(PAUSE)
        self.turns += 1
        until, rate = time.perf_counter() + PATIENCE, 0.0
        while time.perf_counter() < until:
            rate = peak("float32", self.threads, tries=1)
            self.best_rate = max(self.best_rate, rate)
            if rate >= SETTLED * self.best_rate:
                return
        self.unsettled += 1

    def trial(self, playing):
        """The best of three interleaved turns of each."""
        best = dict.fromkeys(playing, float("inf"))
        for _ in range(3 if self.rounds > 3 else 1):
            for key, count in playing.items():
                result = self.turn(key, count)
                best[key] = min(best[key], result[0] if result else float("inf"))
        return best

    def best_only(self, row, playing, seconds):
        """Rivals with their best number of threads; ourselves with all threads, and with one for comparison."""
        for who in {who for who, _ in playing} - {"ours"}:
            mine = [key for key in playing if key[0] == who]
            row.threads[who] = min(mine, key=seconds.get)[1]
        return {(who, n): count for (who, n), count in playing.items() if who == "ours" or row.threads[who] == n}

    def play(self, row, playing):
        """The rounds: all turns in random order, the machine's peak just before and after ours."""
        rounds, started, order = self.rounds, time.perf_counter(), list(playing)
        row.seconds = {self.label(key): [] for key in playing}
        while len(row.peak) < rounds and ("ours", self.threads) in order:
            random.shuffle(order)
            around = []
            for key in list(order):
                ours = key == ("ours", self.threads)
                around += [peak(row.case.dtype, self.threads)] if ours else []
                result = self.turn(key, playing[key])
                around += [peak(row.case.dtype, self.threads)] if ours else []
                if result is None:  # its other times are useless without this round's
                    row.notes[key[0]] = "failed while it was timed"
                    del row.seconds[self.label(key)]
                    order.remove(key)
                    continue
                row.seconds[self.label(key)].append(result[0])
                row.disturbed += result[1] > 0
            row.peak.append(max(around))
            if len(row.peak) == 1 and time.perf_counter() - started > 5:
                rounds = min(rounds, 7)

    def label(self, key):
        return key[0] if key[0] != "ours" or key[1] == self.threads else "ours, 1 thread"


def disturbed_share(rows):
    turns = sum(len(times) for row in rows for times in row.seconds.values())
    return sum(row.disturbed for row in rows), turns


def disagreement(answer, expected):
    """Why a result does not agree, or None."""
    if "outputs" in expected:
        worst = np.abs(np.subtract(answer["outputs"], expected["outputs"])).max()
        return None if worst < 1e-4 else f"its outputs differ by {worst:.1e}"
    moved = abs(expected["before"] - expected["loss"])
    if not abs(answer["loss"] - expected["loss"]) <= AGREE * moved:
        return f"its loss is {answer['loss']:.6f}, not {expected['loss']:.6f}"
    if "rough" in expected and not abs(answer["rough"] - expected["rough"]) <= ROUGHLY * expected["rough"]:
        return f"its loss with dropout is {answer['rough']:.3f}, not about {expected['rough']:.3f}"
    return None
