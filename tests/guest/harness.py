"""What the suites in this folder share: running `reprise`, the record-and-replay check, counting.

A test is a function that takes a Bench with a fresh folder of its own; it returns, or raises Failure or Skip.
"""
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD") or ROOT / "build" / "release")
FORGE = BUILD / "tests" / "guest" / "forge"

# Exit codes of reprise (cli/exit_code.h).
OK, USAGE, DIVERGED, GUEST_FAILED, DAMAGED, NOT_FOUND, HOST_CANNOT, INTERNAL, CANNOT_WRITE = (
    0, 2, 10, 11, 65, 66, 69, 70, 74)

WORKLOADS = ["lost_update", "store_buffer", "message_passing", "iriw", "bank", "locks", "false_sharing", "ring",
             "migratory", "read_mostly", "remap", "kv", "radix", "lu", "fft", "stencil", "timer", "first_touch", "phases"]


def nested_paging():
    """Whether this host's KVM uses the processor's second level of page tables, as a Linux guest needs (vmm/host/host_profile.cc asks the same)."""
    for parameter in ("kvm_intel/parameters/ept", "kvm_amd/parameters/npt"):
        path = pathlib.Path("/sys/module") / parameter
        if path.exists():
            return path.read_text().strip() in ("Y", "1")
    return False


class Failure(Exception):
    pass


class Skip(Exception):
    pass


class Hang(Failure):
    pass


@dataclasses.dataclass
class Test:
    name: str
    run: typing.Callable
    alone: bool = False  # takes the machine for itself: it measures, or fills memory


@dataclasses.dataclass
class Done:
    command: list
    status: int
    out: bytes
    err: bytes

    def text(self):
        words = shlex.join(str(word) for word in self.command)
        tail = b"\n".join((self.err or self.out).strip().splitlines()[-4:]).decode(errors="replace")
        return f"{words}\n    exit status {self.status}: {tail}"


class Installation:
    """reprise and the images, copied to a fast disk (in the lab the build folder is far away). Threads: synchronised."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.lock = threading.Lock()
        self.reprise = self.folder / "reprise"
        source = BUILD / "cli" / "reprise"
        if subprocess.run(["strip", "-o", self.reprise, source], capture_output=True).returncode:
            shutil.copy(source, self.reprise)

    def image(self, name):
        """The copy of image `name` ("bank", "bank.plain")."""
        target = self.folder / f"{name}.elf"
        with self.lock:
            if not target.exists():
                shutil.copy(BUILD / "guest-images" / target.name, target)
        return target


class Bench:
    """What one test works with: its folder and the programs."""

    def __init__(self, installation, folder, timeout):
        self.installation = installation
        self.folder = pathlib.Path(folder)
        self.timeout = timeout

    def image(self, name):
        return self.installation.image(name)

    def reprise(self, *words, timeout=None, prefix=(), env=None):
        """Runs reprise to its end. Raises Hang if it does not come to one."""
        return self.command([*prefix, self.installation.reprise, *words], timeout, env)

    def command(self, words, timeout=None, env=None):
        words = [str(word) for word in words]
        seconds = timeout or self.timeout
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=env)
        except subprocess.TimeoutExpired:
            raise Hang(f"no end within {seconds:g} s: {shlex.join(words)}") from None
        return Done(words, done.returncode, done.stdout, done.stderr)


def expect(condition, text, done=None):
    if not condition:
        raise Failure(text + (f"\n  {done.text()}" if done else ""))


def report_of(done):
    try:
        return json.loads(done.out)
    except ValueError:
        raise Failure(f"no JSON report\n  {done.text()}") from None


def one_sentence(done, status, pattern, silent=True):
    """`done` refused as it should: exit status, one line on standard error, nothing on standard output if `silent`. Wrong usage names the verb."""
    expect(done.status == status, f"exit status {done.status} instead of {status}", done)
    lines = done.err.decode(errors="replace").splitlines()
    who = r"reprise( [a-z-]+)?: " if status == USAGE else "reprise: "
    expect(len(lines) == 1 and re.match(who, lines[0]), f"{len(lines)} lines on standard error, not one that begins with {who!r}", done)
    expect(re.search(pattern, lines[0]), f"the sentence does not match {pattern!r}", done)
    expect(done.out == b"" or not silent, "something on standard output", done)


def compared(report):
    """What a replay must have in common with its recording."""
    return {"reason": report["reason"], "guest_status": report["guest_status"], "message": report["message"],
            "memory_digest": report["memory_digest"],
            "register_digests": [vcpu["register_digest"] for vcpu in report["vcpus"]]}


def record(bench, folder, image, arguments="", vcpus=2, chaos=None, serial=False, status=OK, extra=()):
    """Records; returns (report, console). Standard error must be the console and nothing else."""
    words = ["record", "--json", "--vcpus", vcpus, "-o", folder, *extra]
    words += ["--chaos", chaos] if chaos is not None else []
    words += ["--serial"] if serial else []
    done = bench.reprise(*words, bench.image(image) if isinstance(image, str) else image, "--", *arguments.split())
    expect(done.status == status, f"record ends with {done.status} instead of {status}", done)
    report = report_of(done)
    expect(done.err == (pathlib.Path(folder) / "console").read_bytes(), "standard error is not the console alone", done)
    return report, done.err


def shadows_tables(bench):
    """Whether this host's KVM does not see it when a vCPU changes page tables that another one uses; guests that share theirs are refused then."""
    done = bench.reprise("doctor", "--json")
    expect(done.status == OK, "doctor fails", done)
    facts = {fact["name"]: fact["value"] for fact in report_of(done)["facts"]}
    return facts.get("page tables changed by another VM", "").startswith("not seen")


def count_for(bench, image, least, seconds):
    """A number n, `least` or more, such that this host is busy with `image -- n=N` for about `seconds`: what must meet, or be watched, takes time on fast
    hosts too."""
    count = least
    while True:
        start = time.monotonic()
        done = bench.reprise("run", "--vcpus", 2, bench.image(image), "--", f"n={count}")
        expect(done.status == OK, "run fails", done)
        if time.monotonic() - start > seconds:
            return count
        count *= 4


def replay_alike(bench, folder, report, console, timeout=None):
    """Replays a finished recording; all must agree with `report` and `console`."""
    done = bench.reprise("replay", "--json", folder, timeout=timeout)
    expect(done.status == OK, f"replay ends with {done.status}", done)
    again = report_of(done)
    expect(again["verb"] == "replayed, identical", f"replay says {again['verb']!r}", done)
    expect(compared(again) == compared(report), f"replay differs: {compared(again)} instead of {compared(report)}", done)
    expect(done.err == console, "the replay's console differs", done)


def replay_twice(bench, folder, report, console):
    """Verifies and replays a finished recording twice; all must agree with `report` and `console`."""
    done = bench.reprise("verify", folder)
    expect(done.status == OK and done.err == b"", "verify does not pass", done)
    replay_alike(bench, folder, report, console)
    done = bench.reprise("replay", folder)
    expect(done.status == OK, f"the second replay ends with {done.status}", done)
    expect(done.out == console, "the second replay's console differs", done)
    line = rb"\Areprise: replayed, identical: [^\n]*digest " + report["memory_digest"].encode() + rb"\n\Z"
    expect(re.match(line, done.err), "standard error is not one line with the digest", done)


def record_and_replay(bench, image, arguments="", **options):
    """The whole check: record, verify, replay, replay again, no difference. Returns (report, console, folder)."""
    folder = bench.folder / "recording"
    report, console = record(bench, folder, image, arguments, **options)
    replay_twice(bench, folder, report, console)
    return report, console, folder


class Terminal:
    """A program whose output, and input unless `stdin` is another, is a pseudo-terminal. `seen`: all that it has written."""

    def __init__(self, words, stdin=None):
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen([str(word) for word in words], stdin=child if stdin is None else stdin, stdout=child, stderr=child)
        os.close(child)
        self.seen = b""

    def read_until(self, text, seconds):
        """Until `text` has come since the last call, or, with None, until the program has ended."""
        start = len(self.seen)
        deadline = time.monotonic() + seconds
        while text is None or text not in self.seen[start:]:
            expect(time.monotonic() < deadline, f"{text!r} did not come within {seconds} s; the last was {self.seen[-300:]!r}")
            if not select.select([self.parent], [], [], 1)[0]:
                continue
            try:
                part = os.read(self.parent, 65536)
            except OSError:  # EIO: the other side is closed
                part = b""
            if not part:
                expect(text is None, f"the program ended before {text!r}; the last was {self.seen[-300:]!r}")
                break
            self.seen += part

    def type(self, text):
        os.write(self.parent, text)

    def end(self, seconds):
        """Reads to the end; returns the exit status."""
        self.read_until(None, seconds)
        os.close(self.parent)
        return self.process.wait()


class Runner:
    """Runs tests side by side and counts. What a failed test leaves behind is kept."""

    def __init__(self, jobs, timeout, out=print):
        self.jobs, self.timeout, self.out = jobs, timeout, out
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="reprise-guest-"))
        self.keep = self.scratch / "kept"
        asked = os.environ.get("REPRISE_KEEP")
        if asked and os.access(asked, os.W_OK):  # a lab may have been booted without it
            self.keep = pathlib.Path(asked)
        self.installation = Installation(self.scratch)

    def close(self):
        if self.failed and self.keep.parent == self.scratch:
            for path in self.scratch.iterdir():
                if path != self.keep:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def run(self, tests):
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self.run_one, [test for test in tests if not test.alone]))
        for test in tests:
            if test.alone:
                self.run_one(test)

    def run_one(self, test):
        folder = self.scratch / re.sub(r"[^\w.-]+", "-", test.name)
        folder.mkdir()
        start = time.monotonic()
        try:
            note = test.run(Bench(self.installation, folder, self.timeout))
            outcome, text = "pass", f" [{note}]" if note else ""
        except Skip as skip:
            outcome, text = "SKIP", f": {skip}"
        except Failure as failure:
            outcome, text = "FAIL", f": {failure}"
        except Exception as error:  # a test that breaks has failed; the others go on
            outcome, text = "FAIL", f": {type(error).__name__}: {error}"
        seconds = time.monotonic() - start
        with self.lock:
            if outcome == "FAIL":
                text += self.keep_folder(folder)
            shutil.rmtree(folder, ignore_errors=True)
            self.passed += outcome == "pass"
            self.failed += outcome == "FAIL"
            self.skipped += outcome == "SKIP"
            self.out(f"{outcome} {test.name} ({seconds:.1f} s){text}", flush=True)
        return outcome

    def keep_folder(self, folder):
        """Moves what a failed test made out of the way of the others; returns how to look at it."""
        target = self.keep / folder.name
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(folder, target)
        except OSError as error:
            return f"\n  cannot keep its folder: {error}"
        lines = [f"\n  kept: {target}"]
        reprise = shlex.quote(str(BUILD / "cli" / "reprise"))
        for manifest in sorted(target.rglob("manifest"))[:3]:
            lines.append(f"  again: {ROOT}/tools/kvm-run {'--linux ' if nested_paging() else ''}{reprise} replay {shlex.quote(str(manifest.parent))}")
        return "\n".join(lines)
