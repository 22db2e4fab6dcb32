"""What the host does to the process reaches no guest: stopped and continued all the time (SIGSTOP takes every vCPU out of KVM_RUN), recorder and
replayer see the same run."""
import signal
import subprocess
import time

from harness import OK, Done, Test, compared, expect, report_of

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


def tests(_options):
    return [run_of(*each) for each in RUNS]
