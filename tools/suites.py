"""Runs suites side by side, counts what they did, and holds what they skip against the lists in tests/skips/."""
import concurrent.futures
import dataclasses
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = re.compile(r"^(?:\[ *[\d.]+\] |[\d. ]+ )?(\d+) passed, (\d+) failed, (\d+) skipped", re.MULTILINE)
SKIP = re.compile(r"\bSKIP (\S+) \([\d.]+ s\): (.*)$", re.MULTILINE)
KVM_RUN = ROOT / "tools" / "kvm-run"


@dataclasses.dataclass
class Suite:
    """One command that ends with a line "N passed, N failed, N skipped", unless `counts` says otherwise."""
    name: str
    words: list
    kind: str = ""  # the first word of its lines in tests/skips/; "": it may skip nothing
    host: frozenset = frozenset()  # the lists that hold where it runs
    junit: pathlib.Path | None = None  # ctest's report, instead of the last line
    counts: bool = True  # otherwise the status counts as one test
    environment: dict = dataclasses.field(default_factory=dict)


def output_of(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def can_mount():
    return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0


def this_machine():
    """The lists in tests/skips/ that hold for this machine."""
    lists = {"here"}
    if output_of(KVM_RUN, "--where") != "here":
        lists.add("no-kvm")
    elif output_of(KVM_RUN, "--linux", "--where") != "here":
        lists.add("shadow")
    if not can_mount():
        lists.add("unprivileged")
    if not (ROOT / "build/release/guest-images/linux/debug/vmlinux").exists():
        lists.add("no-symbols")
    return frozenset(lists)


def lab(host="amd"):
    """The lists that hold in a lab."""
    lists = {"emulated", *(this_machine() & {"no-symbols"})}
    return frozenset(lists | ({"shadow"} if host == "shadow" else set()))


def where_kvm_is():
    """The lists that hold where tools/kvm-run runs a command."""
    here = this_machine()
    return lab() if "no-kvm" in here else here


def allowed(kind, host):
    """[(pattern of a name, regular expression of a reason)]"""
    found = []
    for name in sorted(host):
        path = ROOT / "tests" / "skips" / name
        for line in path.read_text().splitlines() if path.exists() else []:
            if line.startswith(f"{kind} "):
                test, reason = line.removeprefix(f"{kind} ").split(": ", 1)
                found.append((test, re.compile(reason)))
    return found


def skips_not_allowed(skipped, kind, host):
    """Of [(name, reason)] those that are on no list."""
    known = allowed(kind, host)
    return [(name, reason) for name, reason in skipped
            if not any(fnmatch.fnmatchcase(name, test) and pattern.search(reason) for test, pattern in known)]


def junit_counts(path):
    """(passed, failed, [(name, reason)]) of ctest's report."""
    passed, failed, skipped = 0, 0, []
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        said = " ".join((case.findtext("system-out") or "").split())
        if case.get("status") == "run":
            passed += 1
        elif case.get("status") == "fail":
            failed += 1
        else:
            skipped.append((case.get("name"), said or case.get("status")))
    return passed, failed, skipped


class Report:
    """Threads: synchronised inside."""

    def __init__(self, title):
        self.title = title
        self.passed = self.failed = self.skipped = 0
        self.broken = []
        self.lock = threading.Lock()
        self.began = time.monotonic()

    def say(self, line):
        print(f"[{time.monotonic() - self.began:4.0f} s] {line}", flush=True)

    def count(self, suite, status, log):
        passed = failed = 0
        skipped = []
        if suite.junit:
            if suite.junit.exists():
                passed, failed, skipped = junit_counts(suite.junit)
        elif suite.counts:
            if lines := COUNTS.findall(log):
                passed, failed, number = map(int, lines[-1])
                skipped = SKIP.findall(log)
                skipped += [("?", "skipped without a SKIP line")] * (number - len(skipped))
        else:
            passed, failed = int(status == 0), int(status != 0)
        trouble = []
        unknown = skips_not_allowed(skipped, suite.kind, suite.host)
        for name, reason in unknown:
            trouble.append(f"skipped, but on no list in tests/skips ({', '.join(sorted(suite.host)) or 'none'}): {name}: {reason[:300]}")
        if passed + failed + len(skipped) == 0:
            trouble.append("no test ran")
            failed += 1
        failed += len(unknown)
        if status != 0 and failed == 0:
            trouble.append(f"ended with status {status}")
            failed += 1
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += len(skipped) - len(unknown)
            if failed:
                self.broken.append(suite.name)
            return passed, failed, len(skipped) - len(unknown), trouble

    def run(self, suite):
        with self.lock:
            self.say(f"== {suite.name}")
        start = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as out:
            status = subprocess.run([str(word) for word in suite.words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out,
                                    stderr=subprocess.STDOUT, env={**os.environ, **suite.environment}).returncode
            out.seek(0)
            log = out.read()
        passed, failed, skipped, trouble = self.count(suite, status, log)
        with self.lock:
            if failed:
                print(log, end="" if log.endswith("\n") else "\n")
            for line in trouble:
                print(f"{self.title}: {suite.name}: {line}")
            self.say(f"{suite.name}: {passed} passed, {failed} failed, {skipped} skipped, {time.monotonic() - start:.0f} s")
        return failed == 0

    def run_all(self, suites, jobs):
        """Side by side, in this order; each one's output when it has ended, if it failed."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self.run, suites))

    def end(self):
        if self.broken:
            print(f"{self.title}: failed: {', '.join(self.broken)}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1


def unit_tests(preset, jobs, *more, environment=None):
    report = ROOT / "build" / preset / "unit.xml"
    report.unlink(missing_ok=True)
    return Suite(f"unit tests, {preset}", ["ctest", "--test-dir", ROOT / "build" / preset, "-LE", "slow|fuzz", "--output-on-failure", "-j", jobs,
                                           "--timeout", "300", "--no-tests=error", "--output-junit", report, *more],
                 "unit", this_machine(), report, environment=environment or {})


def build(preset, *targets):
    """Builds or ends the program: nothing can be tested without it."""
    if subprocess.run([ROOT / "tools" / "build", preset, *targets], stdout=sys.stderr).returncode:
        sys.exit(f"{preset} does not build")
