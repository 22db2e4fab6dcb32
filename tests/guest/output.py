"""What Reprise leaves and prints: files that only their owner reads, and output that fails, ends early or contains what a recording brought along."""
import json
import os
import re
import stat
import subprocess

from harness import BUILD, CANNOT_WRITE, OK, Done, Test, expect, record
from stub import Packets, Stub

CLOSED = 128 + 13  # SIGPIPE, as shells report it


def modes(folder):
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def private(bench):
    """What contains guest memory is for its owner alone, though the umask would allow all."""
    prefix = ["sh", "-c", 'umask 0 && exec "$@"', "sh"]
    folder, memory = bench.folder / "recording", bench.folder / "memory"
    words = ("record", "-o", folder, "--save-memory", memory, bench.image("lost_update"), "--", "n=200000")
    expect(bench.reprise(*words, prefix=prefix).status == 0, "record fails")
    again = bench.folder / "memory-again"
    expect(bench.reprise("replay", folder, "--save-memory", again, prefix=prefix).status == 0, "replay fails")
    done = bench.reprise("checkpoint", folder, "--every", "0.01", prefix=prefix)
    expect(done.status == 0, "checkpoint fails", done)
    found = {**modes(folder), memory: stat.S_IMODE(memory.stat().st_mode), again: stat.S_IMODE(again.stat().st_mode)}
    for path, mode in found.items():
        expect(mode == (0o700 if path.is_dir() else 0o600), f"{path.name} has the mode {mode:o}")
    checkpoints = sum("checkpoint-" in path.name for path in found)
    expect(checkpoints, "no checkpoint was made")
    return f"{len(found)} files and folders, {checkpoints} of them checkpoints"


def every_verb(bench, folder):
    """Command lines that print something, but those of GDB."""
    image = bench.image("lost_update")
    for verb in ("info", "dump", "verify", "replay"):
        yield [verb, folder]
        yield [verb, "--json", folder]
    yield from (["checkpoint", folder], ["doctor"], ["doctor", "--json"], ["help"], ["record", "--help"], ["--version"],
                ["run", "--vcpus", "2", image, "--", "n=2000"], ["run", "--json", "--vcpus", "2", image, "--", "n=2000"])
    for extra in ([], ["--json"]):
        yield ["record", *extra, "-o", bench.folder / f"recording{''.join(extra)}", "--vcpus", "2", image, "--", "n=2000"]


def running(bench, words, **how):
    words = [str(word) for word in (bench.installation.reprise, *words)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=bench.timeout, check=False, **how)
    return Done(words, done.returncode, done.stdout or b"", done.stderr)


def full(bench):
    """Standard output cannot be written: exit status 74 and a sentence; a recording is complete all the same."""
    folder = bench.folder / "good"
    record(bench, folder, "lost_update", "n=2000")
    count = 0
    with open("/dev/full", "wb") as target:
        for words in every_verb(bench, folder):
            done = running(bench, words, stdout=target)
            expect(done.status == CANNOT_WRITE, f"exit status {done.status} instead of {CANNOT_WRITE}", done)
            lines = done.err.decode().splitlines()
            expect(lines[-1] == "reprise: cannot write standard output: No space left on device", "no sentence that says so", done)
            expect(all("error" not in line for line in lines), "more than that", done)
            count += 1
    for name in ("recording", "recording--json"):
        expect(bench.reprise("replay", bench.folder / name).status == OK, f"{name} does not replay")
    # Sentences that cannot be written leave the exit status as it is.
    with open("/dev/full", "wb") as target:
        words = [str(bench.installation.reprise), "info", str(bench.folder / "missing")]
        expect(subprocess.run(words, stderr=target, check=False).returncode == 66, "standard error alone is full")
    return f"{count} command lines"


def closed(bench):
    """Nobody reads standard output any more: a quiet end, as of other programs; a recording that was under way gets an end."""
    folder = bench.folder / "good"
    record(bench, folder, "lost_update", "n=2000")
    count = 0
    for words in every_verb(bench, folder):
        readable, writable = os.pipe()
        os.close(readable)
        done = running(bench, words, stdout=writable)
        os.close(writable)
        expect(done.status == CLOSED, f"exit status {done.status} instead of {CLOSED}", done)
        if "--json" not in words:  # else the console is there
            expect(re.fullmatch(rb"(reprise: (recorded|ran|replayed)[^\n]*\n)?", done.err), "not quiet", done)
        count += 1
    for name in ("recording", "recording--json"):
        done = bench.reprise("replay", bench.folder / name)
        expect(done.status == OK and b"replayed, identical" in done.err, f"{name} does not replay to an end", done)
    return f"{count} command lines"


def no_output(bench):
    """Without standard output at all, no file of the recording takes its place."""
    folder = bench.folder / "recording"
    words = ["record", "-o", folder, "--vcpus", "2", bench.image("lost_update"), "--", "n=2000"]
    done = bench.reprise(*words, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    expect(done.status == CANNOT_WRITE, f"exit status {done.status} instead of {CANNOT_WRITE}", done)
    expect(bench.reprise("replay", folder).status == OK, "the recording does not replay")


def escapes(bench):
    """What a terminal would obey does not reach it from a recording."""
    evil = "\x1b]0;title\x07\x1b[31m\u009b2J\nreprise: all is well\u202e"
    folder = bench.folder / f"recording{evil.replace(chr(10), '')}"
    report, _ = record(bench, folder, "lost_update", "n=2000", extra=())
    expect(report["reason"] == "guest exit", "record fails")
    image = bench.folder / "image\x1b[2J.elf"
    image.write_bytes(bench.image("lost_update").read_bytes())
    told = bench.folder / "told"
    done = bench.reprise("record", "--vcpus", "2", "-o", told, image, "--", f"n=2000 note={evil}")
    expect(done.status == OK, "record fails", done)
    for words in (["info", told], ["dump", told], ["verify", folder], ["checkpoint", folder], ["info", bench.folder / f"missing{evil}"],
                  ["replay", bench.folder / f"missing{evil}"], ["record", "-o", folder, image], ["run", "--kernel", image]):
        done = bench.reprise(*words)
        for byte in (b"\x1b", b"\x07", "\u009b".encode(), "\u202e".encode()):
            expect(byte not in done.out + done.err, f"{byte} reaches the terminal", done)
        expect(b"\nreprise: all" not in done.out + done.err, "a forged line reaches the terminal", done)
    expect(rb"note=\x1b]0;title\x07\x1b[31m\xc2\x9b2J\nreprise: all is well\u{202e}" in bench.reprise("info", told).out, "info does not show the arguments")
    done = bench.reprise("info", "--json", told)
    expect(json.loads(done.out)["manifest"]["command_line"] == f"n=2000 note={evil}", "not the arguments", done)
    expect(all(32 <= byte < 127 or byte == 10 for byte in done.out), "JSON that is not plain ASCII", done)


def summaries(bench):
    """The last line counts page transitions, of a serial recording changes of the turn; one is one, and a duration is told where there is one."""
    one = BUILD / "tests" / "guest" / "one_page.elf"
    lines = []
    for name, extra, image, noun in (("one", (), one, "page transition"), ("many", (), bench.image("lost_update"), "page transitions"),
                                     ("serial", ("--serial",), bench.image("lost_update"), "turn changes"), ("serial-one", ("--serial",), one, "turn change")):
        folder = bench.folder / name
        vcpus = 1 if image is one else 2
        for words, verb in ((("record", "--vcpus", vcpus, "-o", folder, *extra, image, "--", "n=2000"), "recorded"), (("replay", folder), "replayed, identical")):
            done = bench.reprise(*words)
            last = done.err.decode().splitlines()[-1]
            found = re.fullmatch(rf"reprise: {verb}: guest exit, status 0; \d+\.\d{{3}} s, (\d+) {noun}, digest [0-9a-f]{{16}}", last)
            expect(done.status == OK and found and (found[1] == "1") == (vcpus == 1), "another last line", done)
        lines.append(f"{found[1]} {noun}")
    with Stub(bench, bench.folder / "many") as stub, Packets(stub) as client:
        expect(client.ask(b"D") == b"OK", "the stub does not let go")
        _, err = stub.process.communicate(timeout=bench.timeout)
        last = err.decode().splitlines()[-1]
        expect(re.fullmatch(r"reprise: replayed, identical: guest exit, status 0; \d+ page transitions, digest [0-9a-f]{16}", last), f"after a debugger: {last}")
    return ", ".join(lines)


def tests(_options):
    return [Test(f"output/{function.__name__.replace('_', '-')}", function) for function in (private, full, closed, no_output, escapes, summaries)]
