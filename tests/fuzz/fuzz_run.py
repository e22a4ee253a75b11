"""The fuzz run: thousands of spoilt inputs of every layout, in worker processes that may crash, hang or swell.

    python tests/fuzz/fuzz_run.py [--cases 20000] [--seed 0] [--first 0] [--workers CORES] [--keep fuzz-found]

Prints how many were run, how they ended, and every defect; exit code 1 where there is one. The input of a defect is
kept below `--keep`, and `--cases 1 --first NUMBER` runs it again. A defect is anything but an answer, findings or a
`UserError`: another exception, a warning of a library, a death of the process, more than 1 GB of memory, more than 10
seconds of processor time or a minute in all.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import queue
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import fuzz_seeds

MOST_MIB = 1024
MOST_SECONDS = 10.0  # of processor time: of an input of some kB, a thousand times what it should take
DEAD_SECONDS = 60.0  # of waiting
BACKSTOP = 6 << 30  # bytes of address space, libraries included: past it allocations fail, and the machine lives


@dataclass
class Tally:
    """What came of all cases so far."""

    run: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    subjects: Counter[str] = field(default_factory=Counter)
    defects: list[dict] = field(default_factory=list)
    largest: dict = field(default_factory=dict)
    slowest: dict = field(default_factory=dict)

    def add(self, result: dict) -> None:
        self.run += 1
        self.ends[result["ended"]] += 1
        self.subjects[result["what"].partition(":")[0]] += 1
        if result.get("peak_mib", 0) > self.largest.get("peak_mib", 0):
            self.largest = result
        if result.get("seconds", 0) > self.slowest.get("seconds", 0):
            self.slowest = result
        if result["ended"] == "defect":
            self.defects.append(result)


# ------------------------------------------------------------------ worker


def work(seed: int, seeds: Path, place: Path, cases: str, most_seconds: float) -> None:
    """Answer each number on stdin by a line of JSON on stdout, until there is none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not come between
    faulthandler.enable()
    os.environ["TROCAR_CACHE"] = str(place / "cache")
    cv2.setNumThreads(1)
    module = importlib.import_module(cases)
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (BACKSTOP, BACKSTOP))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        folder = place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        start = time.process_time()
        try:
            what, ended = module.run(int(line), seed, seeds, folder)
            why = ""
        except Exception:
            ended, why = "defect", _last_lines(traceback.format_exc())
            what = ": ".join(module.spoil(int(line), seed, seeds)[:2])
        seconds, peak = time.process_time() - start, peak_mib()
        if not why and peak > MOST_MIB:
            ended, why = "defect", f"took {peak:.0f} MiB of memory"
        if not why and seconds > most_seconds:
            ended, why = "defect", f"took {seconds:.1f} s of processor time"
        answer = {"number": int(line), "what": what, "ended": ended, "why": why, "seconds": seconds, "peak_mib": peak}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _last_lines(text: str, most: int = 24) -> str:
    lines = text.splitlines()
    return "\n".join(lines if len(lines) <= most else ["...", *lines[-most:]])[-4000:]


def peak_mib() -> float:
    """Peak memory of this process since it was last cleared."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


# ------------------------------------------------------------------ parent


class Worker:
    """A process that runs cases, begun anew when one of them killed it."""

    def __init__(self, seed: int, seeds: Path, place: Path, cases: str) -> None:
        self._what = lambda number: ": ".join(importlib.import_module(cases).spoil(number, seed, seeds)[:2])
        arguments = [str(seed), str(seeds), str(place), cases, str(MOST_SECONDS)]
        self._command = [sys.executable, __file__, "--work", *arguments]
        self.place, self._log = place, place.with_suffix(".log")
        self._process: subprocess.Popen | None = None

    def run(self, number: int) -> dict:
        """The answer to one case; the death of the process is one too."""
        if self._process is None:
            self._log.unlink(missing_ok=True)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
                )
            assert self._process.stdout
            assert self._process.stdout.readline() == "ready\n", self._log.read_text()
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{number}\n")
        ready, _, _ = select.select([process.stdout], [], [], DEAD_SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        why = f"died (exit code {process.wait()})" if ready else f"hung for {DEAD_SECONDS:.0f} s"
        self.close()
        said = _last_lines(self._log.read_text(errors="replace"))
        return {"number": number, "what": self._what(number), "ended": "defect", "why": f"{why}\n{said}"}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process = None


def fuzz(
    numbers: range,
    seed: int,
    workers: int,
    keep: Path | None = None,
    *,
    report: bool = False,
    cases: str = "fuzz_cases",
) -> Tally:
    """Run the cases of these numbers, of that module; the inputs of defects go below `keep`."""
    tally, todo, lock = Tally(), queue.SimpleQueue(), threading.Lock()
    for number in numbers:
        todo.put(number)
    with tempfile.TemporaryDirectory(prefix="trocar-fuzz-") as temporary:
        seeds = Path(temporary) / "seeds"
        fuzz_seeds.build(seeds)

        def go(index: int) -> None:
            worker = Worker(seed, seeds, Path(temporary) / f"worker{index}", cases)
            try:
                while True:
                    answer = worker.run(todo.get_nowait())
                    with lock:
                        tally.add(answer)
                        if answer["ended"] == "defect" and keep:
                            _keep(answer, worker.place / "case", keep)
                        if report and (answer["ended"] == "defect" or tally.run % 1000 == 0):
                            print(f"{tally.run} run, {len(tally.defects)} defects", file=sys.stderr, flush=True)
            except queue.Empty:
                pass
            finally:
                worker.close()

        threads = [threading.Thread(target=go, args=(index,)) for index in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tally


def _keep(answer: dict, case: Path, keep: Path) -> None:
    folder = keep / str(answer["number"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "why.txt").write_text(f"{answer['what']}\n{answer['why']}\n", encoding="utf-8", errors="backslashreplace")
    subprocess.run(["cp", "-a", str(case), str(folder)], check=False)  # links and pipes as they are


def _which(result: dict) -> str:
    return f"case {result['number']}, {result['what'][:200]}"


def main() -> int:
    """Run and print. Exit code 1 where there are defects."""
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    start = time.monotonic()
    numbers = range(given.first, given.first + given.cases)
    tally = fuzz(numbers, given.seed, min(given.workers, given.cases), given.keep, report=True)
    for defect in tally.defects:
        print(f"--- case {defect['number']}, {defect['what']}\n{defect['why']}")
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(tally.subjects.items()))
    print(f"inputs: {kinds}")
    print(f"ended: {', '.join(f'{name} {count}' for name, count in tally.ends.most_common())}")
    if tally.largest:
        print(f"most memory: {tally.largest['peak_mib']:.0f} MiB, {_which(tally.largest)}")
        print(f"most processor time: {tally.slowest['seconds']:.1f} s, {_which(tally.slowest)}")
    print(f"{tally.run} cases, seed {given.seed}: {len(tally.defects)} defects in {time.monotonic() - start:.0f} s")
    return 1 if tally.defects else 0


if __name__ == "__main__":
    sys.exit(main())
