"""Checkpoints beside a recording: a later session goes on from them, exactly, and from none that is not its own."""
import pathlib
import re
import shutil
import signal
import subprocess
import time

from debugger import Done
from harness import BUILD, FORGE, OK, Test, count_for, expect, one_sentence, record
from stub import Packets, Stub

SEEK = BUILD / "tests" / "guest" / "seek"
HOSTILE = 30
MEMORY = 64 << 20  # of a guest, if nothing else is asked for


def make(bench, folder, every, timeout=None):
    """The verb puts each one back in a session of its own before it says that they are there."""
    done = bench.reprise("checkpoint", folder, "--every", every, timeout=timeout)
    files = sorted(folder.glob("checkpoint-*"))
    expect(done.status == OK and done.out.decode() == f"{len(files)} checkpoints in {folder}\n", f"{len(files)} files are made", done)
    return files


def used_exactly(bench, folder, files, timeout=None, seeks=30, one_in=1):
    """A session that makes none itself: the digests of a straight run at every moment that it comes back to."""
    expect(files, "no checkpoint is made")
    command = [str(word) for word in (SEEK, folder, seeks, 1, 0, one_in)]
    done = subprocess.run(command, capture_output=True, timeout=timeout or bench.timeout)
    expect(done.returncode == OK, "a moment differs", Done(command, done.returncode, done.stdout, done.stderr))
    found = int(re.search(rb" checkpoints=(\d+)", done.stdout)[1])
    expect(found == len(files) + 1, f"{found - 1} of {len(files)} checkpoints are used")
    return done.stdout.decode().strip()


def exact(workload, arguments, vcpus):
    """`seek` with no checkpoints of its own: it has the digests from a straight run, and comes back from the files."""
    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, arguments, vcpus=vcpus, chaos=5)
        return used_exactly(bench, folder, make(bench, folder, 0.01))

    return Test(f"checkpoints/{workload}-{vcpus}", run)


def go_near_the_end(bench, folder):
    """Seconds that it takes a new session, the mark and the digest."""
    with Stub(bench, folder) as stub, Packets(stub) as client:
        end = int(client.monitor("when").split()[-1].rstrip("."))
        start = time.monotonic()
        expect("now at" in client.monitor(f"seek {end - 3}"), "seek goes nowhere")
        seconds = time.monotonic() - start
        return seconds, client.monitor("when"), client.monitor("digest"), stub.remarks


def interrupted(bench):
    """Ctrl-C while what was stored is put back: an end within two seconds, with a sentence, and the files can be used."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", f"n={count_for(bench, 'lost_update', 1_000_000, 2)}", vcpus=2)
    command = [str(word) for word in (bench.installation.reprise, "checkpoint", folder, "--every", 0.01)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    machines = set()
    while process.poll() is None and len(machines) < 2:  # the second one puts them back
        machines |= guest_memories(process)
        time.sleep(0.002)
    time.sleep(0.1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=bench.timeout)
    seconds, done = time.monotonic() - start, Done(command, process.returncode, out, err)
    expect(done.status == 128 + signal.SIGINT and seconds < 2, f"exit status {done.status} after {seconds:.1f} s", done)
    expect(re.fullmatch(rb"reprise: interrupted at [^;]*; the checkpoints that were stored are there, but not all were put back \(\d+\)\n", err), "no sentence", done)
    files = sorted(folder.glob("checkpoint-*"))
    return f"{seconds:.2f} s; {used_exactly(bench, folder, files, seeks=3)}"


def guest_memories(process):
    """Numbers of the files that are the memory of machines; what a host is probed with is smaller."""
    try:
        maps = (pathlib.Path("/proc") / str(process.pid) / "maps").read_text()
    except OSError:
        return set()
    found = re.findall(r"^(\w+)-(\w+) \S+ 00000000 \S+ (\d+) +/memfd:guest-ram", maps, re.M)
    return {inode for begin, end, inode in found if int(end, 16) - int(begin, 16) >= MEMORY}


def used(bench):
    """The second session need not run from the beginning."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", f"n={count_for(bench, 'lost_update', 1_000_000, 2)}", vcpus=2)
    far, *expected = go_near_the_end(bench, folder)
    files = make(bench, folder, far / 20)
    near, *found = go_near_the_end(bench, folder)
    expect(found == expected, f"with checkpoints: {found}, without: {expected}")
    with Stub(bench, folder) as stub, Packets(stub) as client:
        listed = client.monitor("checkpoints").splitlines()
        expect(len(listed) == len(files), f"{len(files)} files, and 'monitor checkpoints' says {listed}")
        number, mark = listed[-1].split()
        expect(f"now at {mark}\n" in client.monitor(f"restart {number}"), f"checkpoint {number} is not where {mark} is")
    expect(near < far / 4, f"it took {near:.2f} s with checkpoints, {far:.2f} s without")
    return f"{far:.2f} s without checkpoints, {near:.2f} s with them"


def refused(bench):
    """Each with one sentence, and what it cannot use it does without."""
    folder, other = bench.folder / "recording", bench.folder / "other"
    for each in (folder, other):
        record(bench, each, "lost_update", "n=20000", vcpus=2, chaos=7)
        make(bench, each, 0.01)
    file = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1].split(".")[0]))
    _, *expected, remarks = go_near_the_end(bench, folder)
    expect(remarks == [], f"good checkpoints are refused: {remarks}")
    good = file.read_bytes()

    def forged(what):
        done = bench.command([FORGE, file, bench.folder / "forged", what, 0])
        expect(done.status == OK, "forge fails", done)
        return (bench.folder / "forged").read_bytes()

    foreign = next(iter(sorted(other.glob("checkpoint-*")))).read_bytes()
    for bad, sentence in ((good[:-1], "bytes of payload"), (good[:100] + bytes([good[100] ^ 1]) + good[101:], "wrong checksum"), (b"", "too short"),
                          (foreign, "of another recording"), (forged("checkpoint-host"), "made on another host"),
                          (forged("checkpoint-console"), "the recorded one"),
                          (good[:8] + b"\xff" + good[9:], "newer Reprise")):
        file.write_bytes(bad)
        _, *found, remarks = go_near_the_end(bench, folder)
        expect(found == expected, f"with a bad file ({sentence}): {found}, not {expected}")
        expect(len(remarks) == 1 and re.fullmatch(rf"reprise: {re.escape(file.name)} is ignored: .*{sentence}.*", remarks[0]), f"{sentence}: {remarks}")
    file.write_bytes(good)
    file.write_bytes(forged("checkpoint-digest"))
    with Stub(bench, folder) as stub, Packets(stub) as client:
        expect("now at" in client.monitor("seek end"), "seek goes nowhere")
        line = stub.process.stderr.readline().decode()
        expect(re.search(f"{re.escape(file.name)} is ignored: the machine is not as it was", line), f"a wrong digest: {line!r}")
    shutil.rmtree(other)
    one_sentence(bench.reprise("checkpoint", other), 66, "other")


def hostile(bench):
    """A file in which anything is changed, with valid sums: used, or ignored with a sentence; nothing crashes or hangs."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=100000", vcpus=2, chaos=5)
    *others, file = make(bench, folder, 0.01)
    for other in others:
        other.unlink()
    good, used_ones = bench.folder / "good", 0
    good.write_bytes(file.read_bytes())
    for seed in range(HOSTILE):
        forged = bench.command([FORGE, good, file, "checkpoint-state", seed])
        expect(forged.status == OK, "forge fails", forged)
        sought = bench.command([SEEK, folder, 3, seed, 0])
        # A state that is another one and keeps its promise is found out where it differs.
        expect(sought.status in (OK, 1) and (sought.status == OK or sought.err), f"seed {seed}, {forged.out}: exit status {sought.status}", sought)
        used_ones += sought.status == OK and b" checkpoints=2 " in sought.out
    return f"{used_ones} of {HOSTILE} are used"


def tests(_options):
    return [exact("lost_update", "n=5000000", 2), exact("locks", "n=4", 4), exact("stencil", "n=64 steps=60", 2), exact("timer", "n=1500000 period=20000", 2),
            Test("checkpoints/used", used), Test("checkpoints/interrupted", interrupted), Test("checkpoints/refused", refused),
            Test("checkpoints/hostile", hostile)]
