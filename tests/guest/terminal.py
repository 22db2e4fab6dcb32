"""What a person at a terminal sees: the guest's lines whole, a line of progress under them, and nothing of it left at the end."""
import re
import subprocess

from harness import Terminal, Test, count_for, expect


def at_a_terminal(bench, *words):
    """Runs reprise with a pseudo-terminal as its output; (exit status, all that was written)."""
    terminal = Terminal([bench.installation.reprise, *words], stdin=subprocess.DEVNULL)
    status = terminal.end(bench.timeout)
    return status, terminal.seen.decode()


def shown(written):
    """The lines that stand on the screen in the end."""
    return [line.split("\r\033[K")[-1] for line in written.replace("\r\n", "\n").split("\n")]


def progress(bench):
    folder = bench.folder / "recording"
    count = count_for(bench, "lost_update", 1000000, 2)  # progress is shown after half a second
    for words, doing in ((["record", "--vcpus", "2", "-o", folder, bench.image("lost_update"), "--", f"n={count}"], "recording"),
                         (["replay", folder], "replaying")):
        status, written = at_a_terminal(bench, *words)
        expect(status == 0, f"exit status {status}: {written}")
        lines = re.findall(rf"\r\033\[K({doing}: [0-9.]+ s, \d+ page transitions[^\r]*)", written)
        expect(lines, f"no line of progress in {written!r}")
        expect(doing == "recording" or all("%" in line for line in lines), f"a replay that does not say how much is left: {lines}")
        screen = shown(written)
        expect(not any(line.startswith(doing) for line in screen), f"progress is left on the screen: {screen}")
        expect(any(line.startswith("checksum=") for line in screen), f"the guest's lines are not whole: {screen}")
    return f"{len(lines)} lines of progress in the replay"


def tests(_options):
    return [Test("terminal/progress", progress)]
