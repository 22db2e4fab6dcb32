"""GDB on a recording: breakpoints, watchpoints and steps in both directions, and what a debugger does at random, compared by digest with replays that
seek."""
import re
import shutil
import subprocess
import zlib

from harness import BUILD, GUEST_FAILED, OK, WORKLOADS, Done, Skip, Test, expect, one_sentence, record
from hosts import GOLDEN, SOFTWARE, host
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
    expect(done.status == OK and len(parts) == len(commands) + 2, f"GDB ended after {commands[:len(parts) - 1][-1:]}: {parts[-1][-500:]}", done)
    return [part.strip() for part in parts[1:-1]], done


def converse(bench, folder, commands, *more):
    """gdb() with commands that each say what a pattern is for, [(command, pattern)]; returns the answers, in order, and all of it."""
    said, done = gdb(bench, folder, [command for command, _ in commands], *more)
    for (command, pattern), text in zip(commands, said):
        expect(re.search(pattern, text), f"{command} says {text!r}, not {pattern!r}", done)
    return said, done


def counter_of(bench):
    """The address of what lost_update counts in."""
    symbols = subprocess.run(["nm", bench.image("lost_update")], capture_output=True, text=True, check=True).stdout
    return "0x" + re.search(r"(\w+) b \w*counter", symbols)[1].lstrip("0")


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
    counter = counter_of(bench)
    watch = f"watch *(unsigned long *) {counter}"
    said, done = gdb(bench, folder, ["break lost_update.cc:29", "continue", f"monitor who-wrote {counter}", watch, "reverse-continue", "monitor when",
                                     f"monitor history {counter} 10000"])

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
        if int(other) == loser + 1:  # it executed alone and had borrowed the page
            continue
        expect(int(has(said[5], r"^\d+")[0]) < int(ticket), "the write before is none", done)
        has(said[6], rf"\* {other} ")
        has(said[7], rf"New value = {value}\b")
        writer, stored = map(int, has(said[8], rf"(?s)Thread (\d) .*Old value = {value}\nNew value = (\d+)").groups())
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)
        # Who got the page may have to wait for the turn, which the other one has, and uses.
        if writer == loser + 1 and stored < value:
            return f"vCPU {loser} stores {stored} over {value}"
    expect(False, "no store loses anything, although updates were lost", done)
    return None


def condition(bench):
    """A breakpoint that is hit thousands of times, with a condition that is true once or never, in both directions."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=1500", vcpus=2, chaos=3)
    counter = counter_of(bench)
    # The loop is unrolled, and GDB stops in one of the copies: what is counted there at some moment is a number that comes.
    seen, done = gdb(bench, folder, ["break racy.h:18", "ignore 1 100", "continue", f"x/gd {counter}"])
    number = re.search(r":\s+(\d+)$", seen[-1])
    expect(number, f"no hundredth hit: {seen}", done)
    once = f"break racy.h:18 if *(unsigned long *) {counter} == {number[1]}"
    commands = {once: "Breakpoint 1", "continue": "hit Breakpoint 1", f"x/gd {counter}": rf":\s+{number[1]}$", "monitor when": "", "monitor digest": "",
                "delete": "", "break racy.h:18 if $rax == 77777777777": "Breakpoint 2", "continue ": "No more reverse-execution history", "reverse-continue": "No more reverse",
                "monitor when ": "^1;", "delete ": "", "monitor seek end": "", f"{once} ": "Breakpoint 3", "reverse-continue ": "hit Breakpoint 3", "monitor when  ": "",
                "monitor digest ": "",
                f"x/gd {counter} ": rf":\s+{number[1]}$"}
    said, done = converse(bench, folder, list(commands.items()))
    answers = dict(zip(commands, said))
    expect(answers["monitor digest"] == answers["monitor digest "] or answers["monitor when"] != answers["monitor when  "],
           f"one moment, two digests: {answers}", done)
    expect(b"replayed, identical" in done.out, "no identical end after detaching", done)


def own_fault(bench):
    """A guest with a general-protection fault of its own, which is what a breakpoint in user mode is found by: searched across it, in both directions."""
    folder = bench.folder / "recording"
    record(bench, folder, "fault", "kind=protection status=7", vcpus=2, status=GUEST_FAILED)
    commands = {"break fault.cc:50": "", "break fault.cc:26": "", "break exit_machine": "", "continue": "hit Breakpoint 1", "continue ": "hit Breakpoint 2",
                "x/i $rip": "hlt", "continue  ": "hit Breakpoint 3", "monitor when": "", "reverse-continue": "hit Breakpoint 2", "reverse-continue ": "hit Breakpoint 1",
                "delete 2": "", "continue   ": "hit Breakpoint 3", "monitor when ": "", "reverse-continue  ": "hit Breakpoint 1"}
    said, done = converse(bench, folder, list(commands.items()))
    expect(said[7] == said[12], f"the same place from two sides: {said[7]}, {said[12]}", done)
    expect(b"replayed, identical" in done.out, "no identical end after detaching", done)


NO_MORE = "No more reverse-execution history"


def runs_and_marks(bench):
    """`run` and `starti` are the recording's, from its beginning or from a mark, after `kill` as well; one place has one mark; a refused write says why."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=20000", vcpus=2, chaos=7)
    commands = {
        ATTEMPT: "^$", "monitor when": "^1;", "stepi": "", "stepi ": "", "reverse-stepi": "", "reverse-stepi ": "", "monitor when ": "^1;", "reverse-stepi  ": NO_MORE,
        "break workload": "Breakpoint 1", "continue": "hit Breakpoint 1", "monitor when  ": r"^[\d.]+;",
        "starti": "stopped", "monitor when   ": "^1;", "run begin": "hit Breakpoint 1", "monitor when    ": "", "starti 60": "stopped", "monitor when     ": r"^6[01]\b",
        "kill": "killed", "monitor when      ": "was killed", "run 1": "hit Breakpoint 1", "monitor when       ": "",
        "attempt set var *(int *) $sp = 4": "(?s)a recording cannot be changed; 'monitor diversion begin'.*Cannot access memory",
        "attempt set var $rax = 4": "a recording cannot be changed", "monitor seek end": "now at", "monitor log 4": r"(?s)^vCPU \d.*ticket.*\n.*ticket",
    }
    said, done = converse(bench, folder, list(commands.items()))
    answers = dict(zip(commands, said))
    expect(answers["monitor when  "] == answers["monitor when    "] == answers["monitor when       "], f"one breakpoint, several marks: {answers}", done)
    expect(b"replayed, identical" in done.out, "no identical end after detaching", done)


def values_of_string_stores():
    """What the word is after each instruction of guest-images/workloads/string_stores.cc."""
    value, word = 0, 0
    for count in (1, 64, 65, 4096):
        for begins in (True, False, True, False):
            value += 1
            word = value * 0x01010101 if begins and count >= 4 else word & ~0xff | value
            yield word


def watched_strings(vcpus):
    """A watched word that repeated string instructions write: each is one hit, forward and backward, at the same places and with the same values."""

    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, "string_stores", "", vcpus=vcpus, chaos=9)
        symbols = subprocess.run(["nm", bench.image("string_stores")], capture_output=True, text=True, check=True).stdout
        word = int(re.search(r"(\w+) b \w*target", symbols)[1], 16) + 4096
        values = list(values_of_string_stores())
        look = ["monitor when", "monitor digest", "x/2i $pc-2", "print $rcx"]
        forward = ["continue", *look]
        backward = ["reverse-continue", *look]
        commands = ["break workload", "continue", "delete", f"watch *(unsigned *) {word:#x}", *(forward * len(values)), "continue", "monitor when",
                    *(backward * len(values)), "reverse-continue", "monitor when", *(forward * len(values))]
        said, done = gdb(bench, folder, commands)
        each = len(forward)
        begin = 4
        hits = [said[begin + i * each:begin + (i + 1) * each] for i in range(len(values))]
        begin += len(values) * each
        expect(NO_MORE in said[begin], f"there is one hit more than {len(values)}: {said[begin]}", done)
        begin += 2
        back = [said[begin + i * each:begin + (i + 1) * each] for i in range(len(values))][::-1]
        begin += len(values) * each + 2
        again = [said[begin + i * each:begin + (i + 1) * each] for i in range(len(values))]
        for i, (hit, before, value) in enumerate(zip(hits, back, values)):
            old = values[i - 1] if i else 0
            expect(re.search(rf"Old value = {old}\nNew value = {value}\n", hit[0]), f"forward, hit {i}: {hit[0]!r}, not {old} and {value}", done)
            expect(re.search(rf"Old value = {value}\nNew value = {old}\n", before[0]), f"backward, hit {i}: {before[0]!r}, not {value} and {old}", done)
            expect(hit[4].endswith("= 0"), f"forward, hit {i}: rcx {hit[4]}: it stops within the instruction", done)
            expect(before[4].endswith(f"= {(1, 64, 65, 4096)[i // 4]}"), f"backward, hit {i}: rcx {before[4]}: it stops within the instruction", done)
        expect([hit[1:3] for hit in again] == [hit[1:3] for hit in hits], f"forward again: {again}, not {hits}", done)
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)

    return Test(f"debugger/watched-strings-{vcpus}", run)


# GDB ends a script at the first error.
ATTEMPT = """python
class Attempt(gdb.Command):
    def invoke(self, argument, from_tty):
        try:
            gdb.execute(argument)
        except gdb.error as error:
            print(error)
Attempt("attempt", gdb.COMMAND_USER)
end"""
FLUSH = ["maintenance flush register-cache", "maintenance flush dcache"]


def diversion(bench):
    """What if? A changed machine runs on, with all its vCPUs; functions are called in it; and nothing of it is left."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=20000", vcpus=2, chaos=3)
    counter = counter_of(bench)
    word = f"*(unsigned long *) {counter}"
    commands = {
        ATTEMPT: "^$", "break workload": "Breakpoint 1", "continue": "hit Breakpoint 1", "monitor when": r"^[\d.]+;", "monitor digest": "^[0-9a-f]{16}$",
        f"attempt set var {word} = 77": "Cannot access memory", "attempt set var $rax = 5": "a recording cannot be changed; 'monitor diversion begin'",
        "attempt print reprise::guest::cpus()": "a recording cannot be changed|Cannot access memory",
        "monitor diversion begin": "may be changed now", "monitor diversion begin ": "there is a diversion already", "monitor when ": "in a diversion;",
        "print reprise::guest::cpus()": "= 2$", f"set var {word} = 77": "", f"print {word}": "= 77$", "set var $rax = 5": "", "print $rax": "= 5$", "stepi": "^0x",
        "attempt set var *(char *) 0xffff800000000000 = 1": "Cannot access memory",
        f"monitor who-wrote {counter}": "not in a diversion", "monitor seek 1": "not in a diversion", "monitor checkpoint": "not in a diversion",
        "attempt reverse-stepi": "not in a diversion",
        "delete": "", "break lost_update.cc:29": "", "continue ": "hit Breakpoint 2", "print got": r"= \d+$", "delete ": "",
        "continue  ": r"(?s)got=\d+ .*the diversion is at its end: the guest switches the machine off, with status \d", "attempt stepi": "the diversion is at its end",
        "monitor diversion end": r"back at [\d.]+\n", "monitor diversion end ": "there is no diversion", FLUSH[0]: "", FLUSH[1]: "", "monitor when  ": "", "monitor digest ": "",
        f"print {word} ": "= 0$", "monitor diversion begin  ": "may be changed now", "break lost_update.cc:24": "", "continue   ": "hit Breakpoint 3", "delete  ": "",
        f"watch {word}": "watchpoint 4", "continue    ": r"(?s)hit Hardware watchpoint 4.*Old value = 0\n+New value = 1\n",
        "continue     ": r"(?s)hit Hardware watchpoint 4.*Old value = 1\n+New value = 2\n", "delete   ": "",
    }
    said, done = converse(bench, folder, list(commands.items()))
    answers = dict(zip(commands, said))
    for command in ("monitor when", "monitor digest"):
        after = answers["monitor when  " if command == "monitor when" else "monitor digest "]
        expect(answers[command] == after, f"{command}: {answers[command]}, after a diversion {after}", done)
    got = int(re.search(r"\d+$", answers["print got"])[0])
    expect(77 < got <= 40077 and f"got={got} " in answers["continue  "], f"got is {got}, and the console: {answers['continue  ']!r}", done)
    expect(b"replayed, identical" in done.out, "no identical end after detaching in a diversion", done)
    return f"got {got}"


def ends_in_diversion(workload, vcpus):
    """A guest that nobody changes comes to its end in a diversion, too, from its beginning on: it checks its results itself."""

    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, small(workload), vcpus=vcpus)
        commands = ["monitor digest", "monitor diversion begin", "continue", "monitor diversion end", "monitor digest"]
        said, done = gdb(bench, folder, commands)
        expect("switches the machine off, with status 0" in said[2], f"the diversion ends with {said[2]!r}", done)
        expect(said[0] == said[4], f"before {said[0]}, after {said[4]}", done)
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)

    return Test(f"debugger/diverted-{workload}-{vcpus}", run)


# For tenths of a second of native execution: each access to a watched page takes longer than 0.1 ms.
LESS = {"lost_update": "n=10000", "false_sharing": "n=3000", "bank": "n=3000", "store_buffer": "n=2000", "message_passing": "n=1000", "iriw": "n=1000",
        "read_mostly": "n=500", "fft": "n=256", "timer": "n=50000 period=20000", "lu": "n=32", "first_touch": "n=1", "phases": "n=2 steps=500"}


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


def stored(bench):
    """Chaos grants reading before writing, and the other vCPU's ticket is between the two: a write waits in the middle of its instruction."""
    if host() != SOFTWARE:
        return "from a host where KVM emulates instructions"
    return wander(bench, GOLDEN / "recordings" / SOFTWARE / "remap", 25, 32)


def stepped(workload, arguments, vcpus, status=OK):
    """All of a recording, or some thousand instructions of it, one by one: the digest at each stop is that of the straight way."""

    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, arguments, vcpus=vcpus, status=status)
        done = bench.command([STEPWISE, folder, 8000, 1, 0], bench.timeout)
        expect(done.status == OK, "a moment differs", done)
        return done.out.decode().strip().splitlines()[0]

    kind = re.search(r"kind=(\w+)", arguments)
    return Test(f"debugger/stepped-{workload}{f'-{kind[1]}' if kind else ''}-{vcpus}", run)


def damaged(bench):
    one_sentence(bench.reprise("gdb", bench.folder / "nothing"), 66, "nothing")


def core(bench):
    """A core file shows what the replay shows: vCPUs as threads, their registers, memory, and what a word in it was called from."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=20000", vcpus=2)
    looks = ["info registers rip rsp eflags cs ss fs_base gs_base", "output/x $xmm1.uint128", "x/32gx $rsp", "x/8i $rip", f"x/gx {counter_of(bench)}", "backtrace 3"]
    first, second, third = bench.folder / "first", bench.folder / "second", bench.folder / "third"
    second.touch(0o644)
    said, done = gdb(bench, folder, ["break workload", "continue", f"generate-core-file {first}", *looks, "thread 2", *looks, f"monitor core {second}", f"gcore {third}"])
    expect("2 vCPUs" in said[2], f"generate-core-file says {said[2]!r}", done)
    expect(third.exists(), f"gcore makes no file: {said[-1]!r}", done)
    others = len(looks) + 4
    for file, threads in ((first, (said[3:3 + len(looks)], said[others:others + len(looks)])), (second, (said[others:others + len(looks)], said[3:3 + len(looks)]))):
        expect(file.stat().st_mode & 0o777 == 0o600, f"others may read {file.name}: {file.stat().st_mode:o}")
        script = bench.folder / "core.gdb"
        lines = [*SETTINGS, "echo \\n<>\\n", "info threads"]
        for thread in ([], ["thread 2"]):
            lines += thread + [line for look in looks for line in ("echo \\n<>\\n", look)]
        script.write_text("\n".join(lines) + "\n")
        words = ["gdb", "-nx", "-batch", "-x", str(script), str(folder / "image.elf"), str(file)]
        ran = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=bench.timeout)
        parts = [part.strip() for part in ran.stdout.split("\n<>\n")[1:]]
        expect(parts and all(f"LWP {number}" in parts[0] for number in (1, 2)), f"the core file has other threads: {ran.stdout}{ran.stderr}")
        seen = (parts[1:1 + len(looks)], parts[1 + len(looks):])
        for own, expected, found in zip((True, False), threads, seen):
            for look, there, here in zip(looks, expected, found):
                # The stack of the other vCPU is in pages that each has its own of; switching to it says where it is.
                expect(here.split("\n[Switching")[0] == there or not own and look in ("x/32gx $rsp", "backtrace 3"),
                       f"{look} says {here!r} of the core file, {there!r} of the replay")


def tests(_options):
    return [Test("debugger/session", session), Test("debugger/lost-update", lost_update), Test("debugger/diversion", diversion), Test("debugger/own-fault", own_fault), Test("debugger/condition", condition), Test("debugger/runs-and-marks", runs_and_marks), watched_strings(1), watched_strings(2), Test("debugger/core", core),
            Test("debugger/no-recording", damaged), *(ends_in_diversion(workload, (2, 4, 1, 2)[i % 4]) for i, workload in enumerate(WORKLOADS)),
            *(wandered(workload, (2, 1, 2, 4)[i % 4], i % 2 == 0) for i, workload in enumerate(WORKLOADS)),
            wandered("ring", 2, False, serial=True), Test("debugger/wander-stored", stored), stepped("lost_update", "n=50", 1), stepped("timer", "n=2000 period=20000", 2),
            stepped("fault", "kind=page status=7", 2, GUEST_FAILED), stepped("fault", "kind=opcode status=7", 1, GUEST_FAILED),
            stepped("fault", "kind=protection status=7", 2, GUEST_FAILED)]
