"""GDB on a recording: breakpoints and steps in both directions, and what a debugger does at random, compared by digest with replays that seek."""
import re
import shutil
import subprocess

from harness import BUILD, OK, Done, Skip, Test, expect, one_sentence, record

WANDER = BUILD / "tests" / "guest" / "wander"
SETTINGS = ["set pagination off", "set confirm off", "set width 0", "set debuginfod enabled off"]


def gdb(bench, folder, commands):
    """Runs `reprise gdb` with these commands; returns what each printed, and all of it."""
    if shutil.which("gdb") is None:
        raise Skip("there is no gdb")
    script = folder.parent / "commands.gdb"
    lines = list(SETTINGS)
    for i, command in enumerate(commands):
        lines += [f"echo \\n<{i}>\\n", command]
    script.write_text("\n".join([*lines, "echo \\n<end>\\n", "detach", ""]))
    words = [str(word) for word in (bench.installation.reprise, "gdb", folder, "--", "-nx", "-batch", "-x", script)]
    # What monitor commands say, GDB writes to standard error.
    ran = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=bench.timeout)
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


def wandered(workload, arguments, seed):
    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, arguments, vcpus=2, chaos=seed)
        command = [str(word) for word in (WANDER, folder, 40, seed)]
        done = subprocess.run(command, capture_output=True, timeout=bench.timeout)
        expect(done.returncode == OK, "a moment differs", Done(command, done.returncode, done.stdout, done.stderr))
        return done.stdout.decode().strip()

    return Test(f"debugger/wander-{workload}", run)


def damaged(bench):
    one_sentence(bench.reprise("gdb", bench.folder / "nothing"), 66, "nothing")


def tests(_options):
    return [Test("debugger/session", session), Test("debugger/no-recording", damaged),
            wandered("lost_update", "n=20000", 7), wandered("message_passing", "n=200", 3)]
