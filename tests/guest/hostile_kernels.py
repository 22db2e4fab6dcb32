"""Kernels that mean no good (guest-images/linux/hostile.S), in the place of Linux: each comes to a clear end, which replays."""
import json
import signal
import subprocess
import time

from harness import GUEST_FAILED, OK, Test, expect, replay_alike, report_of
from linux import file

# How a recording of each ends: exit status, and what the report's message says.
ENDS = {
    "triple": (GUEST_FAILED, "triple fault"),
    "silent": (GUEST_FAILED, "every vCPU is halted"),
    "cr4": (GUEST_FAILED, "code writes CR4 that the kernel did not have"),
    "ports": (OK, ""),
    "registers": (OK, ""),
    "shadow": (OK, ""),
}
DEAF_SECONDS = 60  # one is given to the vCPU to come to a position


def words(bench, kind, vcpus):
    return ["record", "--json", "--kernel", file(bench, f"hostile-{kind}"), "--memory", 64, "--vcpus", vcpus, "--console", "virtio", "-o",
            bench.folder / "recording"]


def ends(kind, vcpus):
    status, message = ENDS[kind]

    def run(bench):
        done = bench.reprise(*words(bench, kind, vcpus))
        expect(done.status == status, f"record ends with {done.status} instead of {status}", done)
        report = report_of(done)
        expect(message in report["message"], f"the message is {report['message']!r}", done)
        for _ in range(2):
            replay_alike(bench, bench.folder / "recording", report, done.err)
        return f"{sum(vcpu['stops'] for vcpu in report['vcpus'])} stops"

    return Test(f"linux/hostile-{kind}-{vcpus}", run)


def deaf(bench):
    """One that loops with interrupts off makes no stop any more: it is ended all the same, and what it did before is there to be read."""
    command = [str(word) for word in [bench.installation.reprise, *words(bench, "deaf", 1)]]
    recorder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(2)
    recorder.send_signal(signal.SIGINT)
    out, err = recorder.communicate(timeout=DEAF_SECONDS)
    expect(recorder.returncode == OK, f"record ends with {recorder.returncode}: {err!r}")
    message = json.loads(out)["message"]
    expect("can be replayed up to" in message, f"no word about a prefix: {message!r}")
    expect(not (bench.folder / "recording" / "final").exists(), "the recording pretends to be whole")
    for verb in ("verify", "replay"):
        done = bench.reprise(verb, bench.folder / "recording")
        expect(done.status == OK, f"{verb} of what was recorded ends with {done.status}", done)


def tests(_options):
    return [*(ends(kind, vcpus) for kind in ENDS for vcpus in (1, 2)), Test("linux/hostile-deaf", deaf)]
