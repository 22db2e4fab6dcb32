"""The archive that a lab boots with.

Host B sees the outside's file tree, so its archive holds what comes before that: busybox, the agent, modules. Host C sees nothing of the
outside: what its commands need is carried in, each file under its own absolute path, with the libraries that it names.
"""
import hashlib
import os
import pathlib
import subprocess
import tempfile

from lab_machine import CACHE, CANNOT, INSIDE, ROOT, LabError

DIRECTORY, PROGRAM, FILE, LINK = 0o40755, 0o100755, 0o100644, 0o120777
# Bytes. Programs of this tree have up to ten times their size in debug sections, and all of it would go through an emulated
# disk; guest images are smaller, and are carried as they are.
STRIPPED_FROM = 4 << 20
PYTHON = "/usr/bin/python3"  # not the first in PATH: the one whose library Debian packages
TOOLS = ["forge", "seek", "wander", "stepwise"]  # of tests/guest
# What the suite debugger calls. GDB without its own Python modules says so where its output is compared.
DEBUGGER = ["/usr/bin/gdb", "/usr/share/gdb/python", "/usr/bin/nm"]
# Imports what tests/guest/run imports, by letting it list its tests, and prints the files of all modules that were loaded.
# concurrent.futures loads its pool when it is first asked for it.
LIST_MODULES = """
import contextlib, io, runpy, sys
sys.dont_write_bytecode = True
sys.argv = [sys.argv[1], "--list"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    runpy.run_path(sys.argv[0], run_name="__main__")
import concurrent.futures.thread
print("\\n".join(file for module in sys.modules.values() if (file := getattr(module, "__file__", None))))
"""


def cpio(files):
    """A newc archive of {name: (mode, bytes)} or {name: (mode, bytes, time)}; directories have mode 0o40755."""
    out = bytearray()
    for number, (name, (mode, data, *time)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = [number, mode, 0, 0, 1, *(time or [0]), len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def build_agent():
    source = INSIDE / "agent.cc"
    built = CACHE / f"agent-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not built.exists():
        temporary = built.with_suffix(f".{os.getpid()}")
        subprocess.run(["g++", "-std=c++20", "-O2", "-static", "-o", temporary, source], check=True)
        os.rename(temporary, built)
    return built


def add_modules(files, kernel, options):
    """`options`: {module: its parameters}."""
    files["modules"] = (DIRECTORY, b"")
    names = (kernel / "order").read_text().split()
    files["modules/order"] = (FILE, "".join(f"{name}.ko {options.get(name, '')}\n" for name in names).encode())
    for name in names:
        files[f"modules/{name}.ko"] = (FILE, (kernel / f"{name}.ko").read_bytes())


def for_shared_tree(kernel, options, shares):
    """For a lab that mounts `shares`, (tag, mode, path), and the outside's root."""
    files = {name: (DIRECTORY, b"") for name in ["bin", "dev", "proc", "host"]}
    files["init"] = (PROGRAM, (INSIDE / "init").read_bytes())
    files["bin/busybox"] = (PROGRAM, pathlib.Path("/bin/busybox").read_bytes())
    files["bin/agent"] = (PROGRAM, build_agent().read_bytes())
    files["shares"] = (FILE, "".join(f"{tag} {mode} {path}\n" for tag, mode, path in shares).encode())
    add_modules(files, kernel, options)
    return cpio(files)


def for_carried_tree(kernel, options, carried, writable):
    """For a lab that has only what it is given: the files `carried`, the empty folders `writable`."""
    tree = CarriedTree()
    for path in ["/bin", "/sbin", "/lib", "/lib64", "/etc/passwd", "/etc/group", "/bin/busybox"]:
        tree.add(path)
    for path in ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", *writable]:
        tree.add_folder(path)
    tree.files["init"] = (PROGRAM, (INSIDE / "init-carried").read_bytes())
    tree.files["run/lab-agent"] = (PROGRAM, build_agent().read_bytes())
    add_modules(tree.files, kernel, options)
    for path in carried:
        tree.add(path)
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        tree.files.setdefault(f"usr/bin/{applet}", (LINK, b"/bin/busybox"))
    # A test that would strip a copy of reprise then keeps it as it is: it was stripped outside.
    tree.files.setdefault("usr/bin/strip", (LINK, b"/bin/false"))
    return cpio(tree.files)


def what_tests_need(build):
    """The files for tests/guest/run and for calling reprise by hand."""
    tests = ROOT / "tests" / "guest"
    listed = subprocess.run([PYTHON, "-c", LIST_MODULES, tests / "run"], capture_output=True, text=True)
    if listed.returncode:
        raise LabError(CANNOT, f"{PYTHON} cannot list the tests: {listed.stderr.strip().splitlines()[-1]}")
    paths = [PYTHON, tests / "run"]
    for module in map(pathlib.Path, listed.stdout.split()):
        # The compiled one saves a second or more of every start; it names its source's time, which the archive keeps.
        paths += [module, *(module.parent / "__pycache__").glob(f"{module.stem}.cpython-???.pyc")]
    paths += [build / "cli" / "reprise", *(build / "tests" / "guest" / name for name in TOOLS), *sorted(build.glob("guest-images/*.elf")),
              *(build / "guest-images" / "linux" / name for name in ("vmlinuz", "initrd"))]
    golden = ROOT / "tests" / "golden"
    return [path for path in [*paths, *DEBUGGER, golden] if pathlib.Path(path).exists()]


class CarriedTree:
    """The files of an archive by name, and what they need beside them: folders, links, libraries."""

    def __init__(self):
        self.files = {}

    def add(self, path):
        """Takes in what is at `path`, an absolute path, a folder with all that is in it."""
        path = pathlib.Path(path)
        if path.is_dir() and not path.is_symlink():
            self.add_folder(path)
            for inside in sorted(path.iterdir()):
                self.add(inside)
            return
        self.add_folder(path.parent)
        name = self.name(path)
        if name in self.files:
            return
        if path.is_symlink():
            self.add_link(path)
            target = path.parent / os.readlink(path)
            if target.exists() and not target.is_dir():
                self.add(os.path.normpath(target))
            elif target.is_dir():
                self.add_folder(os.path.normpath(target))
        elif path.is_file():
            self.add_file(path)
        elif not path.exists():
            raise LabError(CANNOT, f"{path} is not there to be carried into the lab")

    def add_folder(self, path):
        """Takes in the folder `path` without what is in it, and links on the way to it with where they lead."""
        at = pathlib.Path("/")
        for part in pathlib.Path(path).parts[1:]:
            at /= part
            if self.name(at) in self.files:
                continue
            if at.is_symlink():
                self.add_link(at)
                self.add_folder(os.path.normpath(at.parent / os.readlink(at)))
            else:
                self.files[self.name(at)] = (DIRECTORY, b"")

    def add_link(self, path):
        self.files[self.name(path)] = (LINK, os.fsencode(os.readlink(path)))

    def add_file(self, path):
        data, status = path.read_bytes(), path.stat()
        if data.startswith(b"\x7fELF"):
            for library in libraries(path):
                self.add(library)
            if len(data) > STRIPPED_FROM and status.st_mode & 0o111:
                data = stripped(path, data)
        self.files[self.name(path)] = (PROGRAM if status.st_mode & 0o111 else FILE, data, int(status.st_mtime))

    @staticmethod
    def name(path):
        """`path` without the links on the way to it: an archive's names must not lead through them."""
        path = pathlib.Path(path)
        return str(path.parent.resolve() / path.name).lstrip("/")


def libraries(program):
    """The shared libraries of an ELF file, and its interpreter, as ldd names them. None for one that is static."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True)
    words = [word for line in listed.stdout.splitlines() for word in line.split() if word.startswith("/")]
    return [word for word in words if not word.endswith(":")]


def stripped(program, data):
    """`data`, the bytes of a program, without what it does not need to run."""
    with tempfile.NamedTemporaryFile(prefix="reprise-lab-") as file:
        done = subprocess.run(["strip", "-o", file.name, program], capture_output=True)
        return data if done.returncode else pathlib.Path(file.name).read_bytes()
