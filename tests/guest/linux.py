"""Linux guests: Debian's kernel as it is, with the programs of guest-images/linux (tools/linux-guest makes both)."""
import json
import shutil
import time

from harness import BUILD, DAMAGED, GUEST_FAILED, OK, USAGE, Skip, Terminal, Test, expect, one_sentence, replay_alike, report_of

GUEST = BUILD / "guest-images" / "linux"
# Guest seconds in one of the lab's: with more, most of its time would go into the kernel's timer tick.
PACE = "0.1"
SECONDS = 600
# Stops of a vCPU from one digest of its memory to the next.
COMPARED = 2000
QUIET = "console=ttyS0 quiet mitigations=off panic=-1"


def files(bench):
    """(kernel, initrd), on a fast disk."""
    if not (GUEST / "initrd").exists():
        raise Skip(f"{GUEST} is not there; tools/linux-guest makes it")
    for name in ("vmlinuz", "initrd"):
        with bench.installation.lock:
            if not (bench.installation.folder / name).exists():
                shutil.copy(GUEST / name, bench.installation.folder / name)
    return bench.installation.folder / "vmlinuz", bench.installation.folder / "initrd"


def words_for(bench, run, vcpus, *more):
    kernel, initrd = files(bench)
    return ["--kernel", kernel, "--initrd", initrd, "--append", f"{QUIET} {run}", "--vcpus", vcpus, "--pace", PACE, *more]


def machine_digests(bench, folder):
    kinds = json.loads(bench.reprise("info", "--json", folder).out)["summary"]["kinds"]
    return next(kind["events"] for kind in kinds if kind["kind"] == "machine")


def mix(name, run, vcpus, replays):
    def test(bench):
        folder = bench.folder / "recording"
        words = words_for(bench, run, vcpus, "--memory-digest-every", COMPARED, "-o", folder)
        done = bench.reprise("record", "--json", *words, timeout=SECONDS)
        expect(done.status == OK, f"record ends with {done.status}", done)
        expect(b"guest: failed=0" in done.err, "the guest did not say that all went well", done)
        expect(f", {vcpus} CPUs, ".encode() in done.err, f"the kernel did not find {vcpus} CPUs", done)
        report = report_of(done)
        verified = bench.reprise("verify", folder)
        expect(verified.status == OK, "verify does not pass", verified)
        for _ in range(replays):
            replay_alike(bench, folder, report, done.err, SECONDS)
        stops = sum(vcpu["stops"] for vcpu in report["vcpus"])
        digests = machine_digests(bench, folder)
        expect(digests == sum(vcpu["stops"] // COMPARED for vcpu in report["vcpus"]), f"{digests} digests of the machine are not one each {COMPARED} stops", done)
        spins = sum(vcpu["spins"] for vcpu in report["vcpus"])
        expect("spin" not in run and run != "run=all" or vcpus == 1 or spins > 0, "no spin-wait had to be stopped", done)
        return f"{stops} stops, {spins} in spin-waits, {digests} digests of the machine, {report['tickets']} turns, {report['log_bytes']} bytes of log, recorded in {report['wall_ns'] / 1e9:.1f} s"

    return Test(f"linux/{name}-{vcpus}", test)


def session(bench):
    """A person types at the guest's shell while it is recorded, and the replay shows the same session."""
    folder = bench.folder / "recording"
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=shell", 2, "-o", folder)])
    terminal.read_until(b"/ # ", SECONDS)
    terminal.type(b"echo $((6 * 7)) on $(nproc) CPUs\r")
    terminal.read_until(b"42 on 2 CPUs", SECONDS)
    terminal.type(b"sleep 100\r")
    terminal.read_until(b"sleep 100", SECONDS)
    time.sleep(1)
    terminal.type(b"\x03")  # to the guest: its shell gets SIGINT
    terminal.read_until(b"/ # ", SECONDS)
    terminal.type(b"exit\r")
    status = terminal.end(SECONDS)
    expect(status == OK, f"record ends with {status}: {terminal.seen[-300:]!r}")
    done = bench.reprise("replay", folder, timeout=SECONDS)
    expect(done.status == OK, "the session does not replay", done)
    expect(b"42 on 2 CPUs" in done.out and done.out == (folder / "console").read_bytes(), "the replay shows another session", done)


def escape(bench):
    """Ctrl-] ends the recording; what was recorded replays."""
    folder = bench.folder / "recording"
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=shell", 1, "-o", folder)])
    terminal.read_until(b"/ # ", SECONDS)
    terminal.type(b"\x1d")
    status = terminal.end(SECONDS)
    expect(status == OK and b"interrupted" in terminal.seen, f"exit status {status}: {terminal.seen[-300:]!r}")
    done = bench.reprise("replay", folder, timeout=SECONDS)
    expect(done.status == OK and done.out.endswith(b"/ # "), "what was recorded does not replay", done)


def killed(bench):
    """kill -9 while the kernel boots: the prefix verifies and replays."""
    folder = bench.folder / "recording"
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=all", 2, "-o", folder)])
    terminal.read_until(b"race expected", SECONDS)
    terminal.process.kill()
    terminal.end(SECONDS)
    for verb in ("verify", "replay"):
        done = bench.reprise(verb, folder, timeout=SECONDS)
        expect(done.status == OK, f"{verb} of the prefix ends with {done.status}", done)


def panics(bench):
    """A kernel without an init panics; that is recorded and replayed like anything else."""
    kernel, _ = files(bench)
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", "--kernel", kernel, "--append", QUIET, "--vcpus", 2, "--pace", PACE, "-o", folder, timeout=SECONDS)
    expect(done.status == GUEST_FAILED and report_of(done)["guest_status"] == 1, f"record ends with {done.status}", done)
    expect(b"Kernel panic" in done.err, "no panic on the console", done)
    replay_alike(bench, folder, report_of(done), done.err, SECONDS)


def module(bench):
    """A module's rdtsc is answered from the journal: it prints how long things took, and the replay prints the same."""
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", *words_for(bench, "run=module", 2, "-o", folder), timeout=SECONDS)
    expect(done.status == OK, f"record ends with {done.status}", done)
    report = report_of(done)
    total = {name: sum(vcpu[name] for vcpu in report["vcpus"]) for name in ("modules", "module_patches", "times")}
    # Twice, for busybox tries again when the module says that it does not stay. It has 12 rdtsc.
    expect(report["patches_modules"] and total["modules"] >= 1, "no module was patched", done)
    expect(total["module_patches"] == 12 * total["modules"], f"in {total['modules']} modules {total['module_patches']} instructions were replaced", done)
    expect(done.err.count(b"cycles/operation") >= 8, "the module measured nothing", done)
    for _ in range(3):
        replay_alike(bench, folder, report, done.err, SECONDS)
    return f"{total['module_patches']} instructions replaced, {total['times']} times read"


def safepoints(vcpus):
    """A program with safepoints is preempted in loops that never end by themselves, and replayed to the same round of each."""
    def test(bench):
        folder = bench.folder / "recording"
        words = words_for(bench, "run=impatient", vcpus, "--memory-digest-every", COMPARED, "-o", folder)
        done = bench.reprise("record", "--json", *words, timeout=SECONDS)
        expect(done.status == OK and done.err.count(b"impatient") >= 3, f"record ends with {done.status}", done)
        report = report_of(done)
        traps = sum(vcpu["traps"] for vcpu in report["vcpus"])
        expect(traps > 10, f"the program was stopped at {traps} safepoints", done)
        verified = bench.reprise("verify", folder)
        expect(verified.status == OK, "verify does not pass", verified)
        for _ in range(3):
            replay_alike(bench, folder, report, done.err, SECONDS)
        return f"{traps} stops at safepoints"

    return Test(f"linux/safepoints-{vcpus}", test)


def refused(name, pattern, status, change):
    def run(bench):
        kernel, initrd = files(bench)
        folder = bench.folder / "recording"
        words = {"--kernel": kernel, "--initrd": initrd, "--append": QUIET, "--vcpus": 1, "-o": folder}
        change(bench, words)
        one_sentence(bench.reprise("record", *[word for pair in words.items() for word in pair]), status, pattern)
        expect(not folder.exists(), "a recording was left behind")

    return Test(f"linux/refused-{name}", run)


def file_of(bench, data):
    path = bench.folder / "file"
    path.write_bytes(data)
    return path


def truncated(bench, words):
    words["--kernel"] = file_of(bench, words["--kernel"].read_bytes()[:1 << 20])


def damaged(bench, words):
    data = bytearray(words["--kernel"].read_bytes())
    data[3 << 20:(3 << 20) + 4096] = bytes(4096)
    words["--kernel"] = file_of(bench, data)


def tests(_options):
    """Those that take minutes are not in SHORT."""
    return [mix("mix", "run=all", 2, 1), Test("linux/session", session), Test("linux/module", module), safepoints(1), safepoints(2),
            refused("text", "neither a bzImage", DAMAGED, lambda bench, words: words.update({"--kernel": file_of(bench, b"no kernel" * 100)})),
            refused("truncated", "truncated", DAMAGED, truncated),
            refused("damaged", "damaged|cannot be unpacked", DAMAGED, damaged),
            refused("little-memory", "64 to 64512 MiB are possible", USAGE, lambda bench, words: words.update({"--memory": 32})),
            refused("no-room", r"needs \d+ MiB|do not fit", DAMAGED, lambda bench, words: words.update({"--memory": 64})),
            refused("many-vcpus", "can have 1 to 8", USAGE, lambda bench, words: words.update({"--vcpus": 9})),
            refused("crew", "has no safepoints.*--mode serial", USAGE, lambda bench, words: words.update({"--mode": "crew"})),
            refused("long-command-line", "command line has", USAGE, lambda bench, words: words.update({"--append": "x" * 3000})),
            mix("mix", "run=all", 1, 3), mix("mix", "run=all", 4, 3), mix("boot", "run=script", 8, 1), Test("linux/escape", escape),
            Test("linux/killed", killed), Test("linux/panics", panics)]


SHORT = ("linux/mix-2", "linux/session", "linux/module", "linux/safepoints-2", "linux/refused-")
