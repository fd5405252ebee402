#!/usr/bin/env python
"""How fast mismatched prompts are built: rules on one core, and chat requests as a share of what the server allows.

python benchmarks/negatives.py [--captions 20000] [--concurrency 64] [--latency 1.0]

The chat server runs on this machine and answers after a fixed time, so `requests / concurrency * latency` is the ideal.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets

from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.chat import ChatEditor
from diffusers_tpo.negatives.dataset import Source
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan


ROOT = Path(__file__).parents[1]
CAPTIONS = ROOT / "tests" / "data" / "captions.txt"


def timed_build(source: Source, editor, plan: Plan) -> tuple[float, int]:
    """Seconds and requests of a whole build, journal and parquet files included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tally = build(source, editor, plan, Path(folder), identity={})
        return time.perf_counter() - start, tally.requests


def rules(number: int) -> None:
    lines = CAPTIONS.read_text(encoding="utf-8").splitlines()
    texts = list(itertools.islice(itertools.cycle(lines), number))
    source = Source(datasets.Dataset.from_dict({"text": texts}), "text")
    editor = RulesEditor(count_words(lines))
    timed_build(Source(datasets.Dataset.from_dict({"text": lines}), "text"), editor, Plan())  # fills the caches
    seconds, _ = timed_build(source, editor, Plan())
    print(f"rules: {number / seconds:,.0f} captions per second ({number:,} captions in {seconds:.1f} s, one process)")


def chat(concurrency: int, latency: float, rounds: int) -> None:
    command = [sys.executable, ROOT / "tests" / "chat_server.py", "--latency", str(latency), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        texts = [f"a red cube number {index} on the left of a cat" for index in range(concurrency * rounds)]
        source = Source(datasets.Dataset.from_dict({"text": texts}), "text")
        editor = ChatEditor("model", (url,), concurrency=concurrency)
        seconds, requests = timed_build(source, editor, Plan(principles=("attribute",)))
        server.terminate()
    ideal = requests / concurrency * latency
    print(
        f"chat: {ideal / seconds:.1%} of the ideal ({requests} requests of {latency} s, {concurrency} at once, "
        f"in {seconds:.1f} s)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=20, help="Requests per place of the concurrency.")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    rules(args.captions)
    chat(args.concurrency, args.latency, args.rounds)


if __name__ == "__main__":
    main()
