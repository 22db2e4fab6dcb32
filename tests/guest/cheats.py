"""A recording in which one thing was changed, with valid sums: replay says divergence or damage, never "identical"."""
import shutil

from harness import DAMAGED, DIVERGED, FORGE, Failure, Skip, Test, compared, expect, one_sentence, record, report_of

# (what forge changes, workload that has such events, arguments, vCPUs, further options of record)
CHEATS = [
    ("ticket", "lost_update", "n=100000", 2),
    ("ticket", "locks", "n=2", 3),
    ("gain-position", "lost_update", "n=100000", 2),
    ("gain-position", "bank", "n=5000", 4),
    ("gain-page", "locks", "n=2", 3),
    ("message-position", "timer", "n=500000", 2),
    ("message-position", "ring", "n=100", 2),
    ("message-vector", "ring", "n=100", 2),
    ("value", "lost_update", "n=20000 verbose=1", 2),
    ("digest", "bank", "n=5000", 2),
    ("digest", "timer", "n=500000", 2),
    ("machine-digest", "bank", "n=5000", 2, "--serial", "--memory-digest-every", 20),
    ("end", "lost_update", "n=20000", 2),
]
SEEDS = 6


def found(bench, forged, what):
    """Replays a forged recording; how it was found."""
    done = bench.reprise("replay", "--json", forged)
    if done.status == 0:
        raise Failure(f"replay believes it: {what}\n  {done.text()}")
    expect(done.status in (DIVERGED, DAMAGED), f"exit status {done.status}, not 10 or 65: {what}", done)
    return "damage" if done.status == DAMAGED else "divergence"


def forge(bench, folder, target, what, seed):
    done = bench.command([FORGE, folder, target, what, seed])
    if done.status == 3:
        raise Failure(f"the recording has nothing to change a {what} of: choose another workload")
    expect(done.status == 0, "forge fails", done)
    return f"{what} seed {seed}: {done.out.decode().strip()}"


def cheat(what, workload, arguments, vcpus, *more):
    def run(bench):
        folder = bench.folder / "recording"
        record(bench, folder, workload, arguments, vcpus=vcpus, extra=more)
        done = bench.reprise("replay", folder)
        expect(done.status == 0, "the recording itself does not replay", done)
        ways = []
        for seed in range(SEEDS):
            target = bench.folder / f"forged-{seed}"
            ways.append(found(bench, target, forge(bench, folder, target, what, seed)))
            shutil.rmtree(target)
        return f"{ways.count('divergence')} divergences, {ways.count('damage')} damaged"

    return Test(f"cheats/{what}-{workload}", run)


def moved_loss(bench):
    """A page given up a little earlier or later: another run, which may end the same. Never a different end unnoticed."""
    folder = bench.folder / "recording"
    report, console = record(bench, folder, "lost_update", "n=100000")
    noticed = 0
    for seed in range(SEEDS):
        target = bench.folder / f"forged-{seed}"
        what = forge(bench, folder, target, "loss-position", seed)
        done = bench.reprise("replay", "--json", target)
        if done.status == 0:
            expect(compared(report_of(done)) == compared(report) and done.err == console, f"replay differs: {what}", done)
        else:
            expect(done.status in (DIVERGED, DAMAGED), f"exit status {done.status}, not 10 or 65: {what}", done)
            noticed += 1
        shutil.rmtree(target)
    expect(noticed > 0, "not one of the moved losses was noticed")
    return f"{noticed} of {SEEDS} noticed, the others make no difference"


def changed_image(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "bank", "n=1000")
    image = folder / "image.elf"
    whole = image.read_bytes()
    for at in (len(whole) // 5, len(whole) // 2, len(whole) - 1):
        image.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        one_sentence(bench.reprise("replay", folder), DAMAGED, "is not the image that was recorded")
    image.write_bytes(whole[:-1])
    one_sentence(bench.reprise("replay", folder), DAMAGED, "is not the image that was recorded")


def flipped_bytes(bench):
    """Any byte of any file."""
    folder = bench.folder / "recording"
    record(bench, folder, "locks", "n=2")
    files = sorted(path for path in folder.iterdir() if path.name != "image.elf")
    for path in files:
        whole = path.read_bytes()
        for part in (0, 1, 2, 3):
            at = min(len(whole) - 1, len(whole) * part // 3)
            if at < 0:
                continue
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:])
            done = bench.reprise("verify", folder)
            expect(done.status == DAMAGED, f"byte {at} of {path.name} flipped: exit status {done.status}", done)
        path.write_bytes(whole)
    expect(bench.reprise("verify", folder).status == 0, "the restored recording does not verify")


def tests(_options):
    def with_forge(test):
        def run(bench):
            if not FORGE.exists():
                raise Skip("forge is not built (ninja tests/guest/forge)")
            return test.run(bench)
        return Test(test.name, run)

    return [*(with_forge(cheat(*row)) for row in CHEATS), with_forge(Test("cheats/loss-position", moved_loss)),
            Test("cheats/image", changed_image), Test("cheats/flipped-bytes", flipped_bytes)]
