"""A disk that fills up: one sentence, exit status 74, and what was written until then verifies and replays."""
import os
import subprocess

from harness import CANNOT_WRITE, OK, Skip, Test, expect

# Sizes of the disk: none holds all; the smallest not even the image.
SIZES_KIB = [64, 512, 700, 1024]


def full(kib):
    def run(bench):
        if os.geteuid() != 0:
            raise Skip("needs root, to mount a small tmpfs")
        disk = bench.folder / "disk"
        disk.mkdir()
        image = bench.image("bank")
        room = kib if kib < 512 else image.stat().st_size // 1024 + kib - 480
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            raise Skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
        try:
            return on_disk(bench, disk / "recording", image)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)

    def on_disk(bench, folder, image):
        done = bench.reprise("record", "--vcpus", "2", "--chaos", "1", "-o", folder, image, "--", "n=400000")
        expect(done.status == CANNOT_WRITE, f"exit status {done.status} instead of {CANNOT_WRITE}", done)
        lines = done.err.decode(errors="replace").splitlines()
        expect(len(lines) == 1 and lines[0].startswith("reprise: ") and "No space left" in lines[0],
               "not one sentence that says so", done)
        if not (folder / "manifest").exists():
            return "too small for the image"
        done = bench.reprise("verify", folder)
        expect(done.status == OK, "the prefix does not verify", done)
        verified = done.out.decode().strip().split(": ", 1)[-1]
        done = bench.reprise("replay", folder)
        expect(done.status == OK, "the prefix does not replay", done)
        return verified

    return Test(f"full_disk/{kib}-KiB", run)


def tests(_options):
    return [full(kib) for kib in SIZES_KIB]
