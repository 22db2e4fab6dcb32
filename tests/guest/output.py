"""What Reprise leaves and prints: files that only their owner reads, and output that fails, ends early or contains what a recording brought along."""
import stat

from harness import Test, expect


def modes(folder):
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def private(bench):
    """What contains guest memory is for its owner alone, though the umask would allow all."""
    prefix = ["sh", "-c", 'umask 0 && exec "$@"', "sh"]
    folder, memory = bench.folder / "recording", bench.folder / "memory"
    words = ("record", "-o", folder, "--save-memory", memory, bench.image("lost_update"), "--", "n=200000")
    expect(bench.reprise(*words, prefix=prefix).status == 0, "record fails")
    again = bench.folder / "memory-again"
    expect(bench.reprise("replay", folder, "--save-memory", again, prefix=prefix).status == 0, "replay fails")
    done = bench.reprise("checkpoint", folder, "--every", "0.01", prefix=prefix)
    expect(done.status == 0, "checkpoint fails", done)
    found = {**modes(folder), memory: stat.S_IMODE(memory.stat().st_mode), again: stat.S_IMODE(again.stat().st_mode)}
    for path, mode in found.items():
        expect(mode == (0o700 if path.is_dir() else 0o600), f"{path.name} has the mode {mode:o}")
    checkpoints = sum("checkpoint-" in path.name for path in found)
    expect(checkpoints, "no checkpoint was made")
    return f"{len(found)} files and folders, {checkpoints} of them checkpoints"


def tests(_options):
    return [Test(f"output/{function.__name__}", function) for function in (private,)]
