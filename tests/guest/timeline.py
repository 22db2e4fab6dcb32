"""Forwards and backwards: a replay one vCPU at a time ends as it was recorded, and comes back to any moment with the digest that it had there."""
import subprocess
import zlib

from harness import BUILD, OK, WORKLOADS, Done, Test, expect, record
from matrix import SIZES, SMALLER

SEEK = BUILD / "tests" / "guest" / "seek"
SEEKS = 30


def explored(workload, vcpus, chaos):
    seed = zlib.crc32(f"{workload} {vcpus}".encode()) % 1000

    def run(bench):
        folder = bench.folder / "recording"
        arguments = SMALLER.get(workload) or SIZES[workload]
        report, _ = record(bench, folder, workload, arguments, vcpus=vcpus, chaos=seed if chaos else None)
        command = [SEEK, folder, SEEKS, seed]
        done = subprocess.run([str(word) for word in command], capture_output=True, timeout=bench.timeout)
        expect(done.returncode == OK, "a moment differs", Done(command, done.returncode, done.stdout, done.stderr))
        return f"{report['tickets']} transitions, {done.stdout.decode().strip()}"

    return Test(f"timeline/{workload}-{vcpus}{'-chaos' if chaos else ''}", run)


def tests(_options):
    return [explored(workload, (1, 2, 4)[i % 3], i % 2 == 0) for i, workload in enumerate(WORKLOADS)]
