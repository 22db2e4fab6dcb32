"""GDB on a recording: breakpoints, watchpoints and steps in both directions, and what a debugger does at random, compared by digest with replays that
seek."""
import re
import shutil
import subprocess
import zlib

from harness import BUILD, GUEST_FAILED, OK, WORKLOADS, Done, Skip, Test, expect, one_sentence, record
from matrix import SMALLER

WANDER = BUILD / "tests" / "guest" / "wander"
STEPWISE = BUILD / "tests" / "guest" / "stepwise"
SETTINGS = ["set pagination off", "set confirm off", "set width 0", "set debuginfod enabled off"]


def gdb(bench, folder, commands, timeout=None, options=(), words=()):
    """Runs `reprise gdb` with these commands, `options`, and `words` for GDB; returns what each command printed, and all of it. Raises TimeoutExpired
    after `timeout` seconds."""
    if shutil.which("gdb") is None:
        raise Skip("there is no gdb")
    script = folder.parent / "commands.gdb"
    lines = list(SETTINGS)
    for i, command in enumerate(commands):
        lines += [f"echo \\n<{i}>\\n", command]
    script.write_text("\n".join([*lines, "echo \\n<end>\\n", "detach", ""]))
    words = [str(word) for word in (bench.installation.reprise, "gdb", folder, *options, "--", *words, "-nx", "-batch", "-x", script)]
    # What monitor commands say, GDB writes to standard error.
    ran = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout or bench.timeout)
    done = Done(words, ran.returncode, ran.stdout, b"")
    text = done.out.decode(errors="replace")
    parts = re.split(r"\n<(?:\d+|end)>\n", text)
    expect(done.status == OK and len(parts) == len(commands) + 2, f"GDB printed {len(parts)} parts", done)
    return [part.strip() for part in parts[1:-1]], done


def session(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=20000", vcpus=2, chaos=7)
    commands = ["info threads", "break workload", "continue", "bt 2", "monitor when", "monitor digest", "stepi", "stepi", "stepi", "monitor when",
                "reverse-stepi", "reverse-stepi", "reverse-stepi", "monitor when", "monitor digest",
                "tbreak lost_update.cc:25", "continue", "monitor when", "reverse-continue", "monitor when"]
    said, done = gdb(bench, folder, commands)

    def has(i, pattern):
        expect(re.search(pattern, said[i]), f"{commands[i]} says {said[i]!r}, not {pattern!r}", done)

    has(0, r'(?s)Thread 1 "vCPU 0".*Thread 2 "vCPU 1"')
    has(2, r"hit Breakpoint 1.*lost_update\.cc:20")
    has(3, r"(?s)#0 .*lost_update\.cc:20.*#1 .*run_workload.*start\.cc")
    expect(said[4] == said[13] and said[4] != said[9], f"three steps and back: {said[4]}, {said[9]}, {said[13]}", done)
    expect(said[5] == said[14], f"three steps and back change the digest: {said[5]}, {said[14]}", done)
    has(16, r"hit .*lost_update\.cc:2[45]")
    has(18, r"hit Breakpoint 1.*lost_update\.cc:2")
    expect(b"replayed, identical" in done.out, "no identical end after detaching", done)
    return said[17]


def lost_update(bench):
    """The question that Reprise is for: a counter is too small; who has written between the load and the store of whom?"""
    for count in (20_000, 200_000, 3_000_000, 20_000_000):
        folder = bench.folder / f"recording-{count}"
        _, console = record(bench, folder, "lost_update", f"n={count}", vcpus=2, chaos=1)
        # More than those that store what the other one has just stored, which changes nothing.
        if int(re.search(rb"lost=(\d+)", console)[1]) > 1000:
            break
    else:
        raise Skip("too few updates were lost: the vCPUs have not met often enough")
    symbols = subprocess.run(["nm", bench.image("lost_update")], capture_output=True, text=True, check=True).stdout
    counter = "0x" + re.search(r"(\w+) b \w*counter", symbols)[1].lstrip("0")
    watch = f"watch *(unsigned long *) {counter}"
    said, done = gdb(bench, folder, ["break lost_update.cc:29", "continue", f"monitor who-wrote {counter}", watch, "reverse-continue", "monitor when",
                                     f"monitor history {counter}"])

    def has(text, pattern):
        found = re.search(pattern, text)
        expect(found, f"{text!r} is not like {pattern!r}", done)
        return found

    has(said[1], r"hit Breakpoint 1")
    got = int(has(said[4], r"hit Hardware watchpoint 2.*\n+Old value = (\d+)")[1])
    expect(f"got={got} ".encode() in console, f"the counter is {got}, not what the guest says", done)
    mark = has(said[5], r"^[\d.]+")[0]
    has(said[2], f"vCPU \\d wrote it at {re.escape(mark)}, by")
    # Some vCPU gets the page back for its store, and stores what it had made of its load before.
    gains = re.findall(r"vCPU (\d): +\d+ +\d+ +gain +ticket (\d+) +write", said[6])
    handovers = [(int(vcpu), ticket) for (before, _), (vcpu, ticket) in zip(gains, gains[1:]) if before != vcpu]
    expect(handovers, f"no vCPU gets the counter from another one: {said[6]}", done)
    for loser, ticket in reversed(handovers):
        said, done = gdb(bench, folder, [f"monitor seek {ticket}", "maintenance flush register-cache", f"x/gd {counter}", watch, "reverse-continue",
                                         "monitor when", "info threads", "continue", "continue"])
        value = int(has(said[2], r":\s+(\d+)")[1])
        other = has(said[4], rf"(?s)Thread (\d) .*hit Hardware watchpoint 1.*Old value = {value}\b")[1]
        expect(int(other) != loser + 1, f"the write before is one of vCPU {loser} itself", done)
        expect(int(has(said[5], r"^\d+")[0]) < int(ticket), "the write before is none", done)
        has(said[6], rf"\* {other} ")
        has(said[7], rf"New value = {value}\b")
        stored = int(has(said[8], rf"(?s)Thread {loser + 1} .*Old value = {value}\nNew value = (\d+)")[1])
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)
        if stored < value:
            return f"vCPU {loser} stores {stored} over {value}"
    expect(False, "no store loses anything, although updates were lost", done)
    return None


# For tenths of a second of native execution: each access to a watched page takes longer than 0.1 ms.
LESS = {"lost_update": "n=10000", "false_sharing": "n=3000", "bank": "n=3000", "store_buffer": "n=2000", "message_passing": "n=1000", "iriw": "n=1000",
        "read_mostly": "n=500", "fft": "n=256", "timer": "n=50000 period=20000", "lu": "n=32"}


def small(workload):
    """Arguments for a recording to be wandered through."""
    return LESS.get(workload) or SMALLER[workload]


def wander(bench, folder, operations, seed):
    command = [str(word) for word in (WANDER, folder, operations, seed)]
    done = subprocess.run(command, capture_output=True, timeout=bench.timeout)
    expect(done.returncode == OK, "a moment differs", Done(command, done.returncode, done.stdout, done.stderr))
    return done.stdout.decode().strip()


def wandered(workload, vcpus, chaos, serial=False, operations=25):
    seed = zlib.crc32(f"{workload} {vcpus}".encode()) % 1000

    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, small(workload), vcpus=vcpus, chaos=seed if chaos else None, serial=serial)
        return wander(bench, folder, operations, seed)

    return Test(f"debugger/wander-{workload}-{vcpus}{'-serial' if serial else ''}", run)


def stepped(workload, arguments, vcpus, status=OK):
    """All of a recording, or some thousand instructions of it, one by one: the digest at each stop is that of the straight way."""

    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, arguments, vcpus=vcpus, status=status)
        done = bench.command([STEPWISE, folder, 8000, 1, 0], bench.timeout)
        expect(done.status == OK, "a moment differs", done)
        return done.out.decode().strip().splitlines()[0]

    return Test(f"debugger/stepped-{workload}-{vcpus}", run)


def damaged(bench):
    one_sentence(bench.reprise("gdb", bench.folder / "nothing"), 66, "nothing")


def tests(_options):
    return [Test("debugger/session", session), Test("debugger/lost-update", lost_update), Test("debugger/no-recording", damaged),
            *(wandered(workload, (2, 1, 2, 4)[i % 4], i % 2 == 0) for i, workload in enumerate(WORKLOADS)),
            wandered("ring", 2, False, serial=True), stepped("lost_update", "n=50", 1), stepped("timer", "n=2000 period=20000", 2),
            stepped("fault", "kind=page status=7", 2, GUEST_FAILED), stepped("fault", "kind=opcode status=7", 1, GUEST_FAILED)]
