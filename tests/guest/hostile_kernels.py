"""Kernels that mean no good (guest-images/linux/hostile.S), in the place of Linux: each comes to a clear end, which replays."""
import json
import re
import signal
import subprocess
import time

from debugger import FLUSH, STEPWISE, gdb
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
    "strings": (OK, ""),
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


def recorded(bench, kind):
    done = bench.reprise(*words(bench, kind, 1))
    expect(done.status == OK, f"record ends with {done.status}", done)
    return bench.folder / "recording"


def stepped_shadow(bench):
    """Steps through sti, hlt, mov to ss, popf, iretq and exceptions, with interrupts that wait: at each stop all is as on the straight way."""
    done = bench.command([STEPWISE, recorded(bench, "shadow"), 400, 1, 12], bench.timeout)
    expect(done.status == OK, "a moment differs", done)
    return done.out.decode().strip().splitlines()[0]


def strings_watched(bench):
    """A watched word is written by rep stosb and rep movsb, of 1 to 4096 bytes: each write is found, forward and backward."""
    folder = recorded(bench, "strings")
    symbols = subprocess.run(["nm", bench.installation.folder / "hostile-strings"], capture_output=True, text=True, check=True).stdout
    watched = "0x" + re.search(r"(\w+) b watched", symbols)[1].lstrip("0")
    values = [0, 1, 2] + [number * 0x0101010101010101 for number in range(3, 9)]
    commands = [f"watch *(unsigned long *) {watched}", *["continue"] * 8, *["reverse-continue"] * 8, "monitor when", "monitor seek begin"]
    said, done = gdb(bench, folder, commands, bench.timeout)
    for i in range(8):
        for text, old, new in ((said[1 + i], values[i], values[i + 1]), (said[16 - i], values[i + 1], values[i])):
            expect(re.search(rf"(?s)Old value = {old}\nNew value = {new}\b", text), f"instead of the write of {values[i + 1]:#x}: {text!r}", done)
    expect(b"replayed, identical" in done.out, "no identical end after detaching", done)


def ten_steps(bench):
    """Ten steps and back: the same places, marks and digests, stops and string instructions among them."""
    folder = recorded(bench, "strings")
    look = ["p/x $rip", "monitor when", "monitor digest"]
    commands = ["monitor seek 2.1", *FLUSH, *look]
    for step in ("stepi", "reverse-stepi"):
        commands += [command for _ in range(10) for command in (step, *look)]
    said, done = gdb(bench, folder, commands, bench.timeout)
    first = 1 + len(FLUSH)
    seen = [said[first + 4 * i:first + 4 * i + 3] for i in range(21)]
    seen = [[re.sub(r"^\$\d+ = ", "", text[0]), *text[1:]] for text in seen]
    expect(len({text[1] for text in seen[:11]}) == 11, f"steps that are none: {seen[:11]}", done)
    expect(seen[:11] == seen[:9:-1], f"ten steps and back: {seen}", done)
    return seen[10][1]


def tests(_options):
    return [*(ends(kind, vcpus) for kind in ENDS for vcpus in (1, 2)), Test("linux/hostile-deaf", deaf), Test("linux/hostile-shadow-stepped", stepped_shadow),
            Test("linux/hostile-strings-watched", strings_watched), Test("linux/hostile-strings-steps", ten_steps)]
