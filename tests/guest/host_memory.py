"""A host that runs out of memory: the run ends with a sentence before the kernel would kill it, and the recording is whole up to there."""
import os
import subprocess
import time

from harness import HOST_CANNOT, OK, Done, Skip, Test, expect


def meminfo(mib):
    return f"MemTotal: 33554432 kB\nMemAvailable: {mib * 1024} kB\nSwapFree: 0 kB\n"


def runs_out(bench):
    """What the kernel says is a file of ours, which is mounted over its own."""
    if os.geteuid() != 0:
        raise Skip("needs root, to mount over /proc/meminfo")
    file, folder = bench.folder / "meminfo", bench.folder / "recording"
    file.write_text(meminfo(8192))
    mount = ["unshare", "-m", "sh", "-c", f'mount --bind {file} /proc/meminfo && exec "$@"', "sh"]
    tried = subprocess.run([*mount, "true"], capture_output=True)
    if tried.returncode:
        raise Skip(f"cannot mount in a namespace: {tried.stderr.decode().strip()}")
    command = [str(word) for word in (*mount, bench.installation.reprise, "record", "--vcpus", 2, "-o", folder, bench.image("lost_update"), "--", "n=2000000000")]
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stdout.read(1)
    file.write_text(meminfo(40))
    start = time.monotonic()
    out, err = process.communicate(timeout=bench.timeout)
    seconds, done = time.monotonic() - start, Done(command, process.returncode, first + out, err)
    expect(done.status == HOST_CANNOT and err.startswith(b"reprise: this host is out of memory (40 MiB are left)") and err.count(b"\n") == 1,
           f"exit status {done.status}, or no sentence", done)
    expect(seconds < 3, f"it takes {seconds:.1f} s", done)
    done = bench.reprise("replay", folder)
    expect(done.status == OK and b"replayed, identical: interrupted: interrupted" in done.err, "the recording does not replay to its end", done)
    return f"{seconds:.1f} s"


def tests(_options):
    return [Test("host_memory/runs-out", runs_out)]
