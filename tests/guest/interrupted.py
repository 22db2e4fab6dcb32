"""What the host does to the process reaches no guest: stopped and continued all the time (SIGSTOP takes every vCPU out of KVM_RUN), recorder and
replayer see the same run. And SIGINT and SIGTERM end every verb within 2 s, with the exit status that docs/cli.md names."""
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time

from harness import OK, Done, Hang, Skip, Test, compared, count_for, expect, record, report_of

RUNS = [("bank", "n=200000", 2), ("timer", "n=2000000", 2), ("ring", "n=1000", 4)]


def interrupted(bench, *words):
    """Runs reprise, stopping and continuing it; (what it did, how often)."""
    command = [str(word) for word in (bench.installation.reprise, *words)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    times = 0
    deadline = time.monotonic() + bench.timeout
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.001)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.004)
        times += 1
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=bench.timeout)
    return Done(command, process.returncode, out, err), times


def run_of(image, arguments, vcpus):
    def run(bench):
        folder = bench.folder / "recording"
        done, recording = interrupted(bench, "record", "--json", "--vcpus", vcpus, "--chaos", 3, "-o", folder, bench.image(image), "--", *arguments.split())
        expect(done.status == OK, f"record ends with {done.status}", done)
        report, console = report_of(done), done.err
        done, replaying = interrupted(bench, "replay", "--json", folder)
        expect(done.status == OK and report_of(done)["verb"] == "replayed, identical", f"replay ends with {done.status}", done)
        expect(compared(report_of(done)) == compared(report) and done.err == console, "the replay differs", done)
        expect(recording > 2 and replaying > 2, f"stopped {recording} and {replaying} times only: nothing was tried")
        return f"stopped {recording} times while recording, {replaying} while replaying"

    return Test(f"interrupted/{image}-{vcpus}", run)


class Running:
    """A reprise that was started, in a process group of its own."""

    def __init__(self, bench, *words, **how):
        self.bench, self.words = bench, [str(word) for word in (bench.installation.reprise, *words)]
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        self.process = subprocess.Popen(self.words, start_new_session=True, **how)
        self.wait_until(self.takes_signals, "does not come to main()")

    def wait_until(self, condition, text):
        deadline = time.monotonic() + self.bench.timeout
        while not condition() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        expect(condition(), f"{text}: {self.words}")

    def takes_signals(self):
        """Before main(), a signal ends a process as it ends any; on a busy host that is long."""
        with open(f"/proc/{self.process.pid}/status") as status:
            blocked = next((line.split()[1] for line in status if line.startswith("SigBlk:")), "0")
        return int(blocked, 16) >> (signal.SIGINT - 1) & 1

    def wait_for(self, path):
        self.wait_until(path.exists, f"{path} does not appear")

    def interrupt(self, number, statuses, seconds=2.0, as_timeout=False):
        """Sends the signal, and expects the end in time with one of these exit statuses."""
        expect(self.process.poll() is None, f"ended before it was interrupted: {self.words}")
        start = time.monotonic()
        self.process.send_signal(number)
        if as_timeout:  # timeout(1): to the process, then to its group
            os.killpg(self.process.pid, number)
        try:
            out, err = self.process.communicate(timeout=self.bench.timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise Hang(f"{number.name} does not end {self.words}") from None
        took = time.monotonic() - start
        done = Done(self.words, self.process.returncode, out or b"", err or b"")
        expect(done.status in statuses, f"exit status {done.status}, needed is one of {statuses}", done)
        expect(took < seconds, f"{took:.2f} s from {number.name} to the end", done)
        return done


BOTH = (signal.SIGINT, signal.SIGTERM)
LONG = "n=2000000000"


def sentences(done, pattern):
    lines = [line for line in done.err.decode(errors="replace").splitlines() if line.startswith("reprise: ")]
    expect(len(lines) == 1 and pattern in lines[0], f"not one sentence that says {pattern!r}: {lines}", done)


def machine_verbs(bench):
    """`record` and `run` come to a clean end, also if the signal comes twice; the recording is complete."""
    for number in BOTH:
        for twice in (False, True):
            folder = bench.folder / f"{number.name}-{twice}"
            running = Running(bench, "record", "-o", folder, "--vcpus", 2, bench.image("lost_update"), "--", LONG)
            running.wait_for(folder / "manifest")
            time.sleep(0.3)
            sentences(running.interrupt(number, [OK], as_timeout=twice), "recorded: interrupted")
            done = bench.reprise("verify", folder)
            expect(done.status == OK and b"prefix" not in done.out, "the recording has no end", done)
            done = bench.reprise("replay", folder)
            expect(done.status == OK and b"replayed, identical" in done.err, "the recording does not replay", done)
        running = Running(bench, "run", "--vcpus", 2, bench.image("lost_update"), "--", LONG)
        time.sleep(0.3)
        sentences(running.interrupt(number, [OK]), "ran: interrupted")


def replays(bench):
    """`replay`, `checkpoint`, `replay --gdb` and `gdb` end by the signal."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", f"n={count_for(bench, 'lost_update', 1_000_000, 4)}")
    for number in BOTH:
        ended = [128 + number]
        running = Running(bench, "replay", folder)
        time.sleep(0.5)
        sentences(running.interrupt(number, ended, as_timeout=True), "replayed in part, identical so far: interrupted")
        running = Running(bench, "checkpoint", folder, "--every", "0.1")
        time.sleep(0.5)
        sentences(running.interrupt(number, ended), "interrupted")
        path = bench.installation.folder / "interrupted.socket"
        running = Running(bench, "replay", folder, f"--gdb=unix:{path}")
        running.wait_for(path)
        running.interrupt(number, ended)
        expect(not path.exists(), "the socket is left behind")
        running = Running(bench, "replay", folder, f"--gdb=unix:{path}")
        running.wait_for(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            running.interrupt(number, ended)


def debugger(bench):
    """`gdb`, while GDB waits for a command: GDB ends, too, and nothing is left behind."""
    if shutil.which("gdb") is None:
        raise Skip("there is no gdb")
    folder, temporary = bench.folder / "recording", bench.folder / "tmp"
    record(bench, folder, "lost_update", "n=2000")
    temporary.mkdir()
    for number in BOTH:
        running = Running(bench, "gdb", folder, "--", "-nx", "-q", "-ex", "echo ready\\n", stdin=subprocess.PIPE,
                          env={**os.environ, "TMPDIR": str(temporary)})
        while b"ready" not in (line := running.process.stdout.readline()):
            expect(line, "GDB does not start")
        # As from a script: at the terminal, Ctrl-C is GDB's.
        running.interrupt(number, [128 + number])
        expect(not list(temporary.iterdir()), f"{list(temporary.iterdir())} is left behind")
        deadline = time.monotonic() + 5  # GDB that was ended by force takes a moment to be gone
        while left := subprocess.run(["pgrep", "-g", str(running.process.pid)], capture_output=True, text=True, check=False).stdout.split():
            expect(time.monotonic() < deadline, f"processes {left} are left behind")
            time.sleep(0.1)


def blocked(bench):
    """Verbs that only print, while nobody reads what they print."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=2000")
    for words in (["info", folder], ["dump", folder], ["verify", folder], ["doctor"], ["help"]):
        for number in BOTH:
            readable, writable = os.pipe()
            fcntl.fcntl(writable, fcntl.F_SETFL, os.O_NONBLOCK)
            for part in (b" " * 4096, b" "):
                try:
                    while True:
                        os.write(writable, part)
                except BlockingIOError:
                    pass
            fcntl.fcntl(writable, fcntl.F_SETFL, 0)
            running = Running(bench, *words, stdout=writable)
            time.sleep(0.5)
            sentences(running.interrupt(number, [128 + number]), "interrupted")
            os.close(readable)
            os.close(writable)


def tests(_options):
    verbs = [Test(f"interrupted/{function.__name__.replace('_', '-')}", function) for function in (machine_verbs, replays, debugger, blocked)]
    return [*(run_of(*each) for each in RUNS), *verbs]
