"""A disk that fills up: one sentence, exit status 74, and what was written until then verifies and replays."""
import os
import subprocess

from harness import CANNOT_WRITE, OK, Skip, Test, expect

# Room on the disk beside the image, in pages of 4 KiB: none holds all; with the first, not even the image fits. The
# manifest and each of the two logs need a page at least, the image's folder none.
PAGES = [-50, 1, 3, 4, 6, 10]


def full(pages):
    def run(bench):
        if os.geteuid() != 0:
            raise Skip("needs root, to mount a small tmpfs")
        disk = bench.folder / "disk"
        disk.mkdir()
        image = bench.image("ring")
        room = ((image.stat().st_size + 4095) // 4096 + pages) * 4
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            raise Skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
        try:
            return on_disk(bench, disk / "recording", image)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)

    def on_disk(bench, folder, image):
        done = bench.reprise("record", "--vcpus", "2", "-o", folder, image, "--", "n=5000")
        expect(done.status == CANNOT_WRITE, f"exit status {done.status} instead of {CANNOT_WRITE}", done)
        lines = done.err.decode(errors="replace").splitlines()
        expect(len(lines) == 1 and lines[0].startswith("reprise: ") and "No space left" in lines[0],
               "not one sentence that says so", done)
        if not (folder / "manifest").exists():
            return "no room for the manifest"
        done = bench.reprise("verify", folder)
        expect(done.status == OK, "the prefix does not verify", done)
        verified = done.out.decode().strip().split(": ", 1)[-1]
        done = bench.reprise("replay", folder)
        expect(done.status == OK, "the prefix does not replay", done)
        return verified

    return Test(f"full_disk/{pages}-pages-beside-the-image", run)


def tests(_options):
    return [full(pages) for pages in PAGES]
