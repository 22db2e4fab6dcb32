"""Model-specific registers: what holds time, or lets the host write into guest memory, is refused; nothing else changes."""
import re

from harness import BUILD, Test, expect, record_and_replay

IMAGE = BUILD / "tests" / "guest" / "msrs.elf"
REFUSED, ALLOWED = 45, 14  # as in msrs.S


def refused_and_allowed(bench):
    _, console, _ = record_and_replay(bench, IMAGE, vcpus=1)
    wanted = rb"G{%d}\|\.{%d}\n" % (2 * REFUSED, 2 * ALLOWED)
    expect(re.fullmatch(wanted, console), f"the console is {console!r}, not {wanted!r}")


def tests(_options):
    return [Test("msrs/refused-and-allowed", refused_and_allowed)]
