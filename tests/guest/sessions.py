"""Sessions as a front end drives them (sessions.cc): paused, resumed, stopped; and the same for a person, by SIGTSTP and SIGCONT."""
import signal
import subprocess
import time

from harness import BUILD, OK, Done, Test, count_for, expect, replay_alike, report_of

SESSIONS = BUILD / "tests" / "guest" / "sessions"
ROUNDS = 8
# In parallel, with a vCPU that halts until its timer fires, and with vCPUs that wait for each other all the time.
RUNS = [("lost_update", 2, "n=2000000000"), ("timer", 2, "n=2000000000 period=20000"), ("ring", 4, "n=100000000")]
SUSPENDED = 1.5  # seconds
ENOUGH = 2.0  # seconds of a run, so that the guest is still at it when it is suspended for the second time


def driven(image, vcpus, arguments):
    def run(bench):
        command = [str(word) for word in (SESSIONS, bench.image(image), vcpus, bench.folder / "recording", ROUNDS, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=bench.timeout, check=False)
        expect(done.returncode == OK, "a session moves while it is paused, or its replay differs", Done(command, done.returncode, done.stdout, done.stderr))
        return done.stdout.decode().strip()

    return Test(f"sessions/{image}-{vcpus}", run)


def state_of(process):
    with open(f"/proc/{process.pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


def wait_for_state(process, stopped, bench):
    deadline = time.monotonic() + bench.timeout
    while (state_of(process) == "T") != stopped:
        expect(time.monotonic() < deadline, f"the process is {'not ' if stopped else ''}suspended")
        time.sleep(0.01)


def suspended(bench):
    """Ctrl-Z and fg: the time between them is none for the guest, and leaves no trace."""
    folder = bench.folder / "recording"
    command = [str(word) for word in (bench.installation.reprise, "record", "--json", "--vcpus", 2, "-o", folder, bench.image("lost_update"), "--",
                                       f"n={count_for(bench, 'lost_update', 400000, ENOUGH)}")]
    # A group of its own in this session, which the harness, as a shell, could continue: SIGTSTP stops no orphaned group.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)
    begin = time.monotonic()
    while not (folder / "manifest").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    for _ in range(2):
        process.send_signal(signal.SIGTSTP)
        wait_for_state(process, True, bench)
        time.sleep(SUSPENDED)
        process.send_signal(signal.SIGCONT)
        wait_for_state(process, False, bench)
        time.sleep(0.3)
    # It ends by itself: how soon a recorder ends that is told to, is another test's business (interrupted.py).
    out, err = process.communicate(timeout=bench.timeout)
    seconds = time.monotonic() - begin
    done = Done(command, process.returncode, out, err)
    expect(done.status == OK, f"record ends with {done.status}", done)
    report = report_of(done)
    expect(report["reason"] == "guest exit", f"the run ends with {report['reason']}", done)
    took = report["wall_ns"] / 1e9
    expect(took < seconds - 2 * SUSPENDED, f"{took:.1f} s for the guest, {seconds:.1f} s for us, suspended {2 * SUSPENDED:g} s of them", done)
    replay_alike(bench, folder, report, done.err)
    return f"{took:.1f} s for the guest, {seconds:.1f} s for us"


def tests(_options):
    return [*(driven(*each) for each in RUNS), Test("sessions/suspended", suspended)]
