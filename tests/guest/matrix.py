"""Every workload, with 1 to 8 vCPUs, quiet and with chaos: record, replay twice, no difference."""
import zlib

from harness import WORKLOADS, Test, record_and_replay

# Sizes for some tenths of a second where handing over a page takes a millisecond (the lab). By number of vCPUs
# where the work grows faster than it.
SIZES = {
    "lost_update": "n=200000",
    "store_buffer": "n=16384",
    "message_passing": "n=16384",
    "iriw": "n=16384",
    "bank": "n=20000",
    "locks": "n=10",
    "false_sharing": "n=200000",
    "ring": "n=300",
    "migratory": "n=20",
    "read_mostly": "n=3000",
    "remap": "n=10",
    "kv": "n=50",
    "radix": "n=4096",
    "lu": "n=64",
    "fft": "n=1024",
    "stencil": "n=64 steps=5",
    "timer": "n=500000 period=20000",
    "first_touch": "n=4 passes=2",
    "phases": "n=6 steps=20000",
}
SMALLER = {"locks": "n=4", "ring": "n=100", "migratory": "n=8", "remap": "n=2", "kv": "n=20", "radix": "n=1024", "stencil": "n=64 steps=3"}  # 8 vCPUs
SERIAL = ["lost_update", "bank", "ring", "timer", "radix"]


def pair(workload, vcpus, chaos, serial=False, extra=()):
    arguments = SMALLER.get(workload, SIZES[workload]) if vcpus >= 8 else SIZES[workload]
    name = f"{workload}-{vcpus}-{'owners' if extra else 'serial' if serial else 'quiet' if chaos is None else 'chaos'}"

    def run(bench):
        report, _, _ = record_and_replay(bench, workload, arguments, vcpus=vcpus, chaos=chaos, serial=serial, extra=extra)
        return f"{report['tickets']} transitions, recorded in {report['wall_ns'] / 1e9:.2f} s"

    return Test(f"matrix/{name}", run)


def tests(options):
    """All pairs; with --serial also some with one vCPU at a time."""
    found = []
    for workload in WORKLOADS:
        for vcpus in (1, 2, 4, 8):
            seed = zlib.crc32(f"{workload} {vcpus}".encode()) % 1000
            found += [pair(workload, vcpus, None), pair(workload, vcpus, seed)]
    # Pages go from owner to owner at all times.
    found += [pair(workload, 2, None, extra=["--policy", "domains=off"]) for workload in SERIAL]
    for workload in SERIAL:
        found += [pair(workload, vcpus, None, serial=True) for vcpus in ((1, 2, 4, 8) if options.serial else (2, 4))]
    return found
