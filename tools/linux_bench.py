"""What recording a Linux guest costs, for ./dev bench --linux: run, recorded, replayed, and the same kernel, initrd and command line under QEMU."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))
import harness  # noqa: E402: found by the line above
import linux  # noqa: E402

# Guest: (run=..., initrd). What is not here is a part of the mix.
GUESTS = {"boot": ("boot", "initrd"), "mix": ("all", "initrd"), "redis": ("redis", "initrd-servers"), "memcached": ("memcached", "initrd-servers")}
NAMES = [*GUESTS, *linux.PARTS]
SECONDS = 900  # for one run, unless it hangs; a lab beside other work takes its time
MEMORY_MIB = 256


def guest(name):
    """(command line, initrd) of the guest `name`."""
    run, initrd = GUESTS.get(name, (name, "initrd"))
    return f"{linux.QUIET} run={run}", initrd


def say(name, what):
    print(f"bench: {name}: {what}", file=sys.stderr, flush=True)


def least(runs, measure):
    """The report of the fastest of `runs` runs."""
    return min((measure() for _ in range(runs)), key=lambda report: report["wall_ns"])


def row(bench, name, options):
    """One guest under Reprise; times in seconds."""
    line, initrd = guest(name)
    words = ["--json", "--kernel", linux.file(bench, "vmlinuz"), "--initrd", linux.file(bench, initrd), "--append", line,
             "--vcpus", options.vcpus[0], "--memory", MEMORY_MIB, "--pace", linux.PACE]
    folder = bench.folder / "recording"

    def once(verb, *more):
        if verb == "record":
            shutil.rmtree(folder, ignore_errors=True)
        say(name, verb)
        done = bench.reprise(verb, *more, timeout=SECONDS)
        harness.expect(done.status == harness.OK and b"guest: failed=0" in done.err, f"{verb} ends with {done.status}", done)
        return harness.report_of(done)

    try:
        plain = least(options.runs, lambda: once("run", *words))
        recorded = least(options.runs, lambda: once("record", *words, "-o", folder))
        replayed = least(options.runs, lambda: once("replay", "--json", folder))
    except harness.Failure as failure:
        return {"guest": name, "failure": str(failure)}
    seconds = recorded["wall_ns"] / 1e9
    return {"guest": name, "vcpus": options.vcpus[0], "run": plain["wall_ns"] / 1e9, "record": seconds, "replay": replayed["wall_ns"] / 1e9,
            "stops": sum(vcpu["stops"] for vcpu in recorded["vcpus"]), "log_bytes": recorded["log_bytes"], "turns": recorded["tickets"]}


def measure(options):
    """Where KVM runs Linux guests: prints the rows as JSON."""
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        bench = harness.Bench(harness.Installation(folder), folder, SECONDS)
        print(json.dumps([row(bench, name, options) for name in options.workloads]))
    return 0


def qemu(name, options, what, *more):
    """Seconds of one run under TCG; None if it did not end as it should."""
    say(name, f"QEMU, {what}")
    line, initrd = guest(name)
    command = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "qemu64", "-smp", "1", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none",
               "-serial", "stdio", "-monitor", "none", "-no-reboot", "-kernel", linux.GUEST / "vmlinuz", "-initrd", linux.GUEST / initrd, "-append", line, *more]
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return None
    # A replay may end by reaching the end of its file, before the last line is out.
    ended = b"guest: failed=0" in done.stdout or b"failed" not in done.stdout and what == "replay"
    return time.monotonic() - start if done.returncode in (0, 1) and ended else None


def qemu_row(name, options):
    """One guest under QEMU, here: emulation inside an emulation would say nothing. With one CPU: record and replay need a virtual clock that counts
    instructions (icount), with which Debian's kernel does not get to its init on two (QEMU 7.2)."""
    single = ["-accel", "tcg,thread=single"]
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        kinds = {"tcg": single, "icount": [*single, "-icount", "shift=auto"],
                 "record": [*single, "-icount", f"shift=auto,rr=record,rrfile={folder}/rr"], "replay": [*single, "-icount", f"shift=auto,rr=replay,rrfile={folder}/rr"]}
        result = {}
        for what, more in kinds.items():
            if what == "replay" and result["record"] is None:
                continue
            times = [qemu(name, options, what, *more) for _ in range(options.runs)]
            result[what] = min(filter(None, times), default=None)
        file = pathlib.Path(folder) / "rr"
        return result | {"log_bytes": file.stat().st_size if file.exists() else 0}


def measured(options, bench):
    """All rows; `bench`: the program that was called, to be run where Linux guests run. None if that failed."""
    if subprocess.run([ROOT / "tools" / "linux-guest"], stdout=subprocess.DEVNULL).returncode:
        return None
    rows = [{"guest": name} for name in options.workloads]
    if not options.no_kvm:
        lab = [ROOT / "tools" / "lab", "--host", options.lab, "--"] if options.lab else [ROOT / "tools" / "kvm-run", "--linux"]
        words = ["--here", "--linux", "--runs", str(options.runs), "--vcpus", str(options.vcpus[0]), *options.workloads]
        done = subprocess.run([*lab, bench, *words], stdout=subprocess.PIPE)
        if done.returncode:
            return None
        rows = json.loads(done.stdout)
    if not options.no_qemu and shutil.which("qemu-system-x86_64"):
        for each in rows:
            each["qemu"] = qemu_row(each["guest"], options)
    return rows


def quotient(over, under, form=".2f"):
    return f"{over / under:{form}}" if over and under else "-"


def cells(row):
    under = row.get("qemu", {})
    number = f"{row['run']:.1f}" if "run" in row else "-"
    return [row["guest"], number, quotient(row.get("record"), row.get("run")), quotient(row.get("replay"), row.get("record")),
            quotient(row.get("stops"), row.get("record"), ".0f"), quotient(row.get("log_bytes"), row.get("record", 0) * 1e3, ".1f"),
            f"{under['tcg']:.1f}" if under.get("tcg") else "-", quotient(under.get("icount"), under.get("tcg")), quotient(under.get("record"), under.get("icount")),
            quotient(under.get("replay"), under.get("record")), quotient(under.get("log_bytes"), (under.get("record") or 0) * 1e3, ".1f")]


HEADS = ["guest", "run s", "record/run", "replay/record", "stops/s", "log kB/s", "QEMU s", "icount/QEMU", "rr record/icount", "rr replay/record", "rr log kB/s"]
NOTE = ("QEMU (TCG, one CPU: its record/replay gets no further with two) runs on this machine itself, Reprise where KVM runs Linux guests, here or in a lab that is itself emulated: ratios are each within one of the two, "
        "and seconds of one mean nothing beside seconds of the other.")
