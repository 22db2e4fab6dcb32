"""The races are there to be recorded: chaos makes rare outcomes common, and no outcome beyond sequential consistency.

Each test records with seeds 1, 2, ... until it has seen all it wants, at most MOST.
"""
import re
import shutil

from harness import OK, Test, count_for, expect, record

MOST = 60  # of the rarest, a seed in seven shows one; sixty seeds in a row without it come once in ten thousand

MEETING_SECONDS = 0.5  # of an unrecorded run: in less, a fast host's first vCPU is through before the second has begun

# Arguments, vCPUs, the outcome that no interleaving explains (registers r0 r1 ... as digits of a string), those that must show, and how many in all.
# Of iriw's fifteen, six recordings have shown fourteen (docs/determinism.md); ten come in two or three.
LITMUS = {
    "store_buffer": ("n=2048 sweep=64", 2, "00", {"01", "10", "11"}, 3),
    "message_passing": ("n=2048 sweep=64", 2, "10", {"00", "01", "11"}, 3),
    "iriw": ("n=128 sweep=4", 4, "1010", {"0000", "1111"}, 10),
}


def consoles(bench, workload, arguments, vcpus, chaos=True):
    """Records with one seed after the other; yields each console."""
    for seed in range(1, MOST + 1):
        folder = bench.folder / f"seed-{seed}"
        report, console = record(bench, folder, workload, arguments, vcpus=vcpus, chaos=seed if chaos else None)
        expect(report["guest_status"] == 0, f"seed {seed}: guest status {report['guest_status']}")
        yield seed, console.decode()
        shutil.rmtree(folder)


def number(console, key):
    found = re.search(rf"\b{key}=(-?\d+)", console)
    expect(found, f"no {key}= in {console!r}")
    return int(found.group(1))


def lost_updates(bench):
    seen = []
    count = count_for(bench, "lost_update", 400000, MEETING_SECONDS)
    for seed, console in consoles(bench, "lost_update", f"n={count}", 2):
        seen.append(number(console, "lost"))
        if len({lost for lost in seen if lost > 0}) >= 3:
            return f"lost {seen} with seeds 1 to {seed}"
    expect(False, f"lost {seen}: fewer than three outcomes with lost updates")


def money(bench):
    seen = []
    count = count_for(bench, "bank", 50000, MEETING_SECONDS)
    for seed, console in consoles(bench, "bank", f"n={count}", 2):
        seen.append(number(console, "appeared"))
        if min(seen) < 0 < max(seen):
            return f"appeared {seen} with seeds 1 to {seed}"
    expect(False, f"appeared {seen}: money did not both appear and vanish")


def litmus(workload):
    arguments, vcpus, never, wanted, least = LITMUS[workload]

    def run(bench):
        counts = {}
        for seed, console in consoles(bench, workload, arguments, vcpus):
            for registers, count in re.findall(r"^outcome((?: r\d=\d)+): (\d+)", console, re.M):
                outcome = "".join(re.findall(r"=(\d)", registers))
                counts[outcome] = counts.get(outcome, 0) + int(count)
            shown = {outcome for outcome, count in counts.items() if count}
            expect(never not in shown, f"seed {seed}: an outcome that is not sequentially consistent: {counts}")
            if wanted <= shown and len(shown) >= least and seed >= 5:
                return f"{counts} with seeds 1 to {seed}"
        expect(False, f"not all of {sorted(wanted)} and {least} outcomes with {MOST} seeds: {counts}")

    return Test(f"races/{workload}", run)


def seeds_differ(bench):
    """Five seeds, at least two different ends: chaos steers."""
    ends = set()
    for seed, console in consoles(bench, "bank", "n=3000", 4):
        ends.add(re.search(r"checksum=(\S+)", console).group(1))
        if seed >= 5 and len(ends) > 1:
            return f"{len(ends)} different ends of {seed}"
    expect(False, f"all {MOST} seeds end the same")


def one_cpu_loses_nothing(bench):
    _, console = record(bench, bench.folder / "recording", "lost_update", "n=20000 strict=1", vcpus=1, chaos=1, status=OK)
    expect(number(console.decode(), "lost") == 0, "one CPU alone lost an update")


def tests(_options):
    return [Test("races/lost_update", lost_updates), Test("races/bank", money), *(litmus(name) for name in LITMUS),
            Test("races/seeds-differ", seeds_differ), Test("races/one-cpu", one_cpu_loses_nothing)]
