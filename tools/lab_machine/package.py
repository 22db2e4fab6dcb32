"""Programs out of Debian packages: downloaded and unpacked into a cache, never installed, with the libraries that they name."""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from lab_machine import CACHE, CANNOT, LabError, say


def fetch_packages(packages):
    """The folder in the cache with what `packages` and the libraries that they depend on hold; fills the cache first if empty."""
    target = CACHE / ("packages-" + "-".join(packages))
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            debs = with_fresh_lists(lambda: download(packages, work))
            tree = pathlib.Path(work) / "tree"
            for deb in debs:
                subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(tree, target)
    return target


def with_fresh_lists(get):
    """What `get` returns. Package lists may be missing or out of date: if it fails it is tried again with new ones, and then says what is really
    wrong."""
    try:
        return get()
    except LabError:
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "update"], capture_output=True)
        return get()


def download(packages, folder):
    wanted = with_libraries(packages)
    say(f"fetching {' '.join(packages)} and {len(wanted) - len(packages)} packages with libraries (once)")
    return download_only(wanted, folder)


def download_only(wanted, folder):
    """The files of these packages ("NAME" or "NAME=VERSION"), in the order of their names."""
    got = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *wanted], cwd=folder, capture_output=True, text=True)
    if got.returncode:
        why = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(CANNOT, f"cannot download {' '.join(wanted)}: {why}")
    return sorted(pathlib.Path(folder).glob("*.deb"))


def with_libraries(packages):
    """`packages` and all lib... packages that they depend on, directly or through each other: what programs need, not what installing needs."""
    wanted, left = [], list(packages)
    while left:
        package = left.pop()
        if package in wanted:
            continue
        wanted.append(package)
        depends = subprocess.run(["apt-cache", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
                                  "depends", package], capture_output=True, text=True)
        if depends.returncode:
            raise LabError(CANNOT, f"apt does not know {package}; run apt-get update as root")
        # Of alternatives ("|Depends"), the last one.
        left += re.findall(r"^ +(?:Pre)?Depends: (lib[^<\s]+)", depends.stdout, re.MULTILINE)
    return wanted


def program_files(tree, programs):
    """{name in an archive: file in `tree`} of `programs` ("/usr/bin/x"), of the libraries that they name and of their loader."""
    files, left = {}, list(programs)
    while left:
        name = left.pop()
        if name in files:
            continue
        files[name] = found = inside(tree, name)
        listed = subprocess.run(["readelf", "-ldW", found], capture_output=True, text=True)
        loader = re.findall(r"program interpreter: (/[^\]]+)\]", listed.stdout)
        needed = re.findall(r"\(NEEDED\).*\[([^\]]+)\]", listed.stdout)
        left += loader + [library(tree, each) for each in needed]
    return {name.lstrip("/"): path for name, path in files.items()}


def library(tree, name):
    for folder in ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"]:
        if (tree / folder.lstrip("/") / name).exists():
            return f"{folder}/{name}"
    raise LabError(CANNOT, f"{name} is in none of the packages in {tree}")


def inside(tree, name):
    """The file that `name` is in a system whose root is `tree`."""
    path = tree / name.lstrip("/")
    while path.is_symlink():
        link = os.readlink(path)
        path = tree / link.lstrip("/") if link.startswith("/") else path.parent / link
    if not path.is_file():
        raise LabError(CANNOT, f"{name} is not in {tree}")
    return path
