"""kill -9 of the recorder at random moments: what is left verifies and replays to its end."""
import random
import shutil
import subprocess
import time

from harness import OK, Hang, Test, expect

RUNS = [("lost_update", "n=3000000", 2), ("bank", "n=200000", 4), ("timer", "n=20000000", 2), ("ring", "n=3000", 2)]


def wait_for(path, process, seconds):
    """Until `path` is there or `process` has ended."""
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def killed(number):
    def run(bench):
        choice = random.Random(number)
        image, arguments, vcpus = RUNS[number % len(RUNS)]
        chaos = ["--chaos", str(number)] if choice.random() < 0.5 else []
        seconds = choice.uniform(0, 1.5)
        folder = bench.folder / "recording"
        words = [bench.installation.reprise, "record", "--vcpus", vcpus, *chaos, "-o", folder, bench.image(image), "--",
                 *arguments.split()]
        recorder = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        # Most while the guest runs; every fifth at any moment, so also before it does.
        if number % 5:
            wait_for(folder / "manifest", recorder, bench.timeout)
        time.sleep(seconds)
        recorder.kill()
        recorder.wait(bench.timeout)
        how = f"{image} killed {seconds:.2f} s after {'the guest' if number % 5 else 'its own'} start"
        # Before the manifest is there, no vCPU has run: nothing is recorded.
        if not (folder / "manifest").exists():
            shutil.rmtree(folder, ignore_errors=True)
            return f"{how}: nothing was recorded yet"
        done = bench.reprise("verify", folder)
        expect(done.status == OK, f"the prefix does not verify ({how})", done)
        verified = done.out.decode().strip().split(": ", 1)[-1]
        done = bench.reprise("replay", folder)
        expect(done.status == OK, f"the prefix does not replay ({how})", done)
        expect(len(done.err.splitlines()) == 1, f"more than one line on standard error ({how})", done)
        return f"{how}: {verified}"

    return Test(f"kill/{number}", run)


def interrupted(bench):
    """Ctrl-C is a clean end: a finished recording, which replays."""
    folder = bench.folder / "recording"
    words = [str(bench.installation.reprise), "record", "--json", "-o", str(folder), "--vcpus", "2",
             str(bench.image("lost_update")), "--", "n=2000000000"]
    recorder = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(folder / "manifest", recorder, bench.timeout)
    time.sleep(0.5)
    recorder.terminate()
    try:
        out, _ = recorder.communicate(timeout=bench.timeout)
    except subprocess.TimeoutExpired:
        recorder.kill()
        recorder.wait()
        raise Hang("SIGTERM does not end the recorder") from None
    expect(recorder.returncode == OK, f"exit status {recorder.returncode} after SIGTERM: {out[-200:]}")
    done = bench.reprise("replay", folder)
    expect(done.status == OK, "what was recorded before SIGTERM does not replay", done)


def tests(options):
    return [*(killed(number) for number in range(options.count)), Test("kill/interrupt", interrupted)]
