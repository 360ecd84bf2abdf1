"""What a boxed interpreter must be able to read: Python, its packages, the system's libraries."""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py").resolve()
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
DEVICES = (Path("/dev/null"), Path("/dev/urandom"))  # libraries open them when they are imported
ENVIRONMENT = {
    "HOME": "/",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Readable:
    """`links` are folders that are symbolic links here, as `/lib` often is, with their targets."""

    python: Path
    packages: list[Path]
    paths: list[Path]
    links: dict[Path, str]


def readable() -> Readable:
    """As it is for this process's own interpreter."""
    python = Path(sys.executable).resolve()
    schemes = sysconfig.get_paths()
    packages = [Path(schemes[kind]).resolve() for kind in ("purelib", "platlib")]
    system = [Path(path) for path in _SYSTEM]
    links = {path: str(path.readlink()) for path in system if path.is_symlink()}
    wanted = [
        python,
        Path(sys.base_prefix).resolve() / "lib",
        Path(schemes["stdlib"]).resolve(),
        Path(schemes["platstdlib"]).resolve(),
        *packages,
        *(path for path in system if path.exists() and path not in links),
    ]
    paths: list[Path] = []
    for path in sorted(set(wanted), key=lambda path: len(path.parts)):
        if path.exists() and not any(path.is_relative_to(above) for above in paths):
            paths.append(path)
    return Readable(python, list(dict.fromkeys(packages)), paths, links)
