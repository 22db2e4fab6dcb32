"""Machines that stop while a vCPU is where it cannot stop: in the middle of a string instruction's exit, in a loop that no clock names a place of."""
import signal
import subprocess
import time

from harness import OK, Done, Test, expect, record, replay_alike, report_of

STRING_IO_RUNS = 40  # without the fix, one in twelve of them ended in a failed check (30 November 2026)
LIMIT = 2.0          # seconds from the signal to the end, as docs/cli.md says
SAYS_PREFIX = "can be replayed up to"


def string_io(bench):
    """Two vCPUs in rep ins and outs at the serial port, of all kinds; one of them ends the machine while the other waits for the port."""
    for count in range(STRING_IO_RUNS):
        folder = bench.folder / f"recording-{count}"
        report, console = record(bench, folder, "string_io", chaos=count if count % 2 else None)
        if count % 4 == 0:
            replay_alike(bench, folder, report, console)


def stop(bench, signal_number, *words):
    """Runs reprise, sends it a signal when the guest has said something; (what it did, seconds from the signal to its end)."""
    command = [str(word) for word in (bench.installation.reprise, *words)]
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stderr.read(1)
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(signal_number)
    try:
        out, err = process.communicate(timeout=bench.timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        expect(False, f"no end within {bench.timeout} s of signal {signal_number}")
    return Done(command, process.returncode, out, first + err), time.monotonic() - start


def no_safepoint(bench):
    """Ctrl-C while a vCPU loops without safepoints: the recorder ends soon, says that the recording is a prefix, and that replays."""
    for name in (signal.SIGINT, signal.SIGTERM):
        folder = bench.folder / f"recording-{name.name}"
        done, seconds = stop(bench, name, "record", "--json", "--vcpus", 2, "-o", folder, bench.image("no_safepoint"))
        expect(done.status == OK, f"record ends with {done.status}", done)
        expect(seconds < LIMIT, f"{seconds:.1f} s from the signal to the end, at most {LIMIT:g}", done)
        report = report_of(done)
        expect(report["reason"] == "interrupted" and SAYS_PREFIX in report["message"], "no word about a prefix", done)
        expect(not (folder / "final").exists(), "the recording pretends to be whole")
        done = bench.reprise("replay", "--json", folder)
        expect(done.status == OK, f"the prefix does not replay: {done.status}", done)


def with_safepoints(bench):
    """The same where each place has a name: the recording is complete."""
    folder = bench.folder / "recording"
    done, seconds = stop(bench, signal.SIGINT, "record", "--json", "--vcpus", 2, "-o", folder, bench.image("lost_update"), "--", "n=2000000000")
    expect(done.status == OK, f"record ends with {done.status}", done)
    expect(seconds < LIMIT, f"{seconds:.1f} s from the signal to the end, at most {LIMIT:g}", done)
    report = report_of(done)
    expect(report["reason"] == "interrupted" and SAYS_PREFIX not in report["message"], "not a complete recording", done)
    replay_alike(bench, folder, report, done.err)


def tests(_options):
    return [Test("stopping/string-io", string_io), Test("stopping/no-safepoint", no_safepoint), Test("stopping/with-safepoints", with_safepoints)]
