"""What an audit of 20,000 rows costs: `rlaif audit` from a file to its report, and the report in a browser.

    python benchmarks/audit_report.py                      20,000 rows, a third of them disagreements
    python benchmarks/audit_report.py --agreement 0        every row is a disagreement: the largest page

The rows are made up: responses of about 1,500 characters each, three votes, a judge asked in both orders. Time and peak
memory are those of the whole command, a process of its own. In the browser: time from opening the file to the first
rows, the first search (which reads all texts once), a later search, and a sort. Goal: 20 s and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMON = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so said what up its about than into them
can only other time new some could these two may first then do any like my now over such our man
"""
CHARACTERS = 1_500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--agreement", type=float, default=0.67, help="share of rows that judge and people agree on")
    parser.add_argument("--keep", type=Path, help="folder to keep the report in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_rows(folder / "judged.jsonl", arguments.rows, arguments.agreement)
        out = arguments.keep or folder / "audit"
        print(f"{arguments.rows:,} rows, {source.stat().st_size / 1e6:.0f} MB")
        seconds, cpu_seconds, megabytes = audit(source, out)
        report = out / "report.html"
        size = report.stat().st_size / 1e6
        print(f"rlaif audit: {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), {megabytes:.0f} MB at most")
        print(f"report.html: {size:.0f} MB")
        for what, measured in browse(report):
            print(f"browser: {what}: {measured}")
    return 0


def write_rows(path: Path, rows: int, agreement: float) -> Path:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            human = rng.choice("ab")
            side = human if rng.random() < agreement else "ab"["ba".index(human)]
            prob = 0.5 + rng.random() / 2 if side == "a" else 0.5 - rng.random() / 2
            shift = min(prob, 1 - prob) * rng.random()
            row = {
                "id": f"row-{number:05}",
                "task": rng.choice(("chat", "code", "safety")),
                "prompt": text(rng, CHARACTERS // 5),
                "response_a": text(rng, rng.randint(CHARACTERS // 2, CHARACTERS * 3 // 2)),
                "response_b": text(rng, rng.randint(CHARACTERS // 2, CHARACTERS * 3 // 2)),
                "human_votes": [human, human, rng.choice(("a", "b", "tie"))],
                "prob_a": prob,
                "prob_a_ab": prob + shift,
                "prob_a_ba": prob - shift,
            }
            file.write(json.dumps(row) + "\n")
    return path


def text(rng: random.Random, characters: int) -> str:
    words = rng.choices(COMMON.split(), k=characters // 5 + 1)
    for place in range(19, len(words), 20):
        words[place] += "\u2019s.\n\n"  # typographic, as models write it: such text takes two bytes a character
    return " ".join(words)[:characters]


def audit(source: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of the command."""
    command = [sys.executable, "-m", "rlaif", "audit", str(source), "-o", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def browse(report: Path) -> list[tuple[str, str]]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        return [("chromium and chromedriver", "not found")]
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tempfile.mkdtemp()
    flags = ("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    for flag in (*flags, f"--user-data-dir={profile}", "--enable-precise-memory-info"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    browser: Any = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        browser.set_script_timeout(120)
        browser.get(report.resolve().as_uri())
        loaded = browser.execute_script(
            "return performance.timing.domContentLoadedEventEnd - performance.timing.fetchStart"
        )
        measured = [("first rows shown", f"{loaded / 1000:.1f} s")]
        for what, query in (
            ("first search", "which you were all"),
            ("a later search", "all her she"),
            ("no match", "zzz"),
        ):
            shown, longest = browser.execute_async_script(SEARCH, query)
            measured.append((what, f"{shown:.0f} ms after the pause in typing, longest stop {longest:.0f} ms"))
        browser.execute_script("document.getElementById('clear').click()")
        shown, longest = browser.execute_async_script(SORT)
        measured.append(("sort by id", f"{shown:.0f} ms"))
        memory = browser.execute_script("return performance.memory.usedJSHeapSize")
        return [*measured, ("JavaScript heap", f"{memory / 1e6:.0f} MB")]
    finally:
        browser.quit()
        shutil.rmtree(profile, ignore_errors=True)


WATCH = """
const done = arguments[arguments.length - 1];
let longest = 0, last = performance.now(), going = true;
const tick = () => {
  const now = performance.now();
  longest = Math.max(longest, now - last);
  last = now;
  if (going) setTimeout(tick, 0);
};
const status = document.getElementById("status");
const start = performance.now();
const watcher = new MutationObserver(() => {
  if (status.textContent.startsWith("Reading")) return;
  watcher.disconnect(); going = false;
  setTimeout(() => done([performance.now() - start - wait, longest]), 0);
});
watcher.observe(status, { childList: true, characterData: true, subtree: true });
tick();
"""
SEARCH = f"""
const wait = 120;
{WATCH}
const query = document.getElementById("query");
query.value = arguments[0];
query.dispatchEvent(new Event("input"));
"""
SORT = f"""
const wait = 0;
{WATCH}
const sort = document.getElementById("sort");
sort.value = "id";
sort.dispatchEvent(new Event("change"));
"""


if __name__ == "__main__":
    raise SystemExit(main())
