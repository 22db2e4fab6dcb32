"""Memory reclamation without locks (docs/reclamation.md): every scheme with every structure, and every bug found by chaos."""
import re
import shutil
import zlib

from harness import GUEST_FAILED, Test, expect, record_and_replay, replay_twice, report_of

SCHEMES = ["qsbr", "ebr", "nebr", "hp", "lfrc", "rcu", "leak", "spin", "ticket", "rw"]
STRUCTURES = ["list", "hash", "queue", "stack"]
VCPUS = [1, 2, 4, 8]

MISUSE = 4  # the guest's exit status where memory was used that is free (guest-images/reclamation/node.h)
MOST = 60   # seeds until a bug must have been found; docs/reclamation.md tells how many it took

# The bugs that chaos is known to find (docs/reclamation.md has the others), with arguments that make them show soon.
BROKEN = {
    "nebr": "scheme=nebr break=1 ops=300 update=100 length=4 batch=1 group=2",
    "hp": "scheme=hp break=1 ops=150 update=100 length=4 batch=1",
    "lfrc": "scheme=lfrc break=1 ops=200 update=100 length=8 layout=paged",
    "lfrc-claim": "scheme=lfrc break=2 ops=200 update=100 length=4",
    "spin": "scheme=spin break=1 ops=150 update=100 length=4",
    "ticket": "scheme=ticket break=1 ops=150 update=100 length=4",
}
FOUND_SOON = "reclamation/broken-lfrc-claim"


def pair(scheme, structure, vcpus, chaos):
    arguments = f"scheme={scheme} structure={structure} ops={max(120 // vcpus, 20)} update=60 length=4 buckets=4 batch=4 group=4"

    def run(bench):
        seed = zlib.crc32(f"{scheme} {structure} {vcpus}".encode()) % 1000 if chaos else None
        report, console, _ = record_and_replay(bench, "reclamation", arguments, vcpus=vcpus, chaos=seed)
        expect(b" lost=0\n" in console, f"not every node is accounted for: {console!r}")
        return f"{report['tickets']} transitions, recorded in {report['wall_ns'] / 1e9:.2f} s"

    return Test(f"reclamation/{scheme}-{structure}-{vcpus}-{'chaos' if chaos else 'quiet'}", run)


def broken(name):
    """Records with seeds 1, 2, ... until the bug shows, and replays that recording twice."""
    def run(bench):
        for seed in range(1, MOST + 1):
            folder = bench.folder / f"seed-{seed}"
            done = bench.reprise("record", "--json", "--vcpus", 4, "--chaos", seed, "-o", folder, bench.image("reclamation"), "--",
                                 *BROKEN[name].split())
            report = report_of(done)
            if report["guest_status"] == MISUSE:
                break
            shutil.rmtree(folder)
        expect(done.status == GUEST_FAILED and report["guest_status"] == MISUSE, f"not found in {MOST} recordings", done)
        replay_twice(bench, folder, report, done.err)
        found = re.search(rb"^(?:use after|write after|double|endless).*$", done.err, re.M)
        return f"seed {seed}: {found.group().decode() if found else done.err[-100:]!r}"

    return Test(f"reclamation/broken-{name}", run)


def in_sample(name):
    """Of each scheme two structures, all numbers of vCPUs and both kinds in turn; and one of the bugs."""
    return name in SAMPLE or name == FOUND_SOON


SAMPLE = {f"reclamation/{scheme}-{structure}-{VCPUS[(i // 2 + j) % 4]}-{'chaos' if (i + j // 2) % 2 else 'quiet'}"
          for i, scheme in enumerate(SCHEMES) for j, structure in enumerate(STRUCTURES) if (i + j) % 2 == 0}


def tests(_options):
    pairs = [pair(scheme, structure, vcpus, chaos)
             for scheme in SCHEMES for structure in STRUCTURES for vcpus in VCPUS for chaos in (False, True)]
    return [*pairs, *(broken(name) for name in BROKEN)]
