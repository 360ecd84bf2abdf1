"""The system calls a boxed interpreter may make, compiled into a seccomp program by libseccomp.

A list of what is allowed, not of what is dangerous: a kernel that learns a new trick tomorrow
refuses it here. There is no socket, process, program start, file change, signal to others, trace,
mount, key, BPF, perf, userfaultfd or io_uring in it.
"""

import errno
import tempfile

_ALLOWED = [
    "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "close",
    "close_range", "lseek", "open", "openat", "openat2", "access", "faccessat",
    "faccessat2", "stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs",
    "readlink", "readlinkat", "getdents64", "getcwd", "chdir", "dup", "dup2", "dup3",
    "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "eventfd2", "epoll_create1",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "mmap", "munmap", "mprotect", "mremap",
    "madvise", "brk", "membarrier", "futex", "set_robust_list", "rseq", "set_tid_address",
    "arch_prctl", "sched_yield", "sched_getaffinity", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigpending", "sigaltstack", "restart_syscall", "alarm", "setitimer",
    "getitimer", "pause", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres",
    "gettimeofday", "time", "times", "getpid", "getppid", "gettid", "getuid", "geteuid",
    "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getpgrp", "getrlimit",
    "getrusage", "sysinfo", "uname", "umask", "getrandom", "getcpu", "exit", "exit_group",
]  # fmt: skip

_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # every namespace
_IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451, 0x541B)  # TCGETS FIONBIO FIONCLEX FIOCLEX FIONREAD
# Without F_SETOWN and F_SETSIG, by which a pipe sends signals to any process of the same user.
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_DUPFD_CLOEXEC


class FilterUnavailable(Exception):
    """Why no filter can be made on this machine."""


def program() -> bytes:
    """The filter as `struct sock_filter`s for this machine. Raises FilterUnavailable."""
    try:
        import pyseccomp
    except Exception as missing:  # its import loads libseccomp, and fails in several ways
        raise FilterUnavailable(
            "libseccomp is not installed (Debian: libseccomp2), or pyseccomp is not."
        ) from missing

    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    native = pyseccomp.Arch.NATIVE

    def allow(name: str, *conditions: pyseccomp.Arg) -> None:
        # Each machine lacks some: arm64 has no `open`, an older library no name for what is new.
        if pyseccomp.resolve_syscall(native, name) >= 0:
            rules.add_rule(pyseccomp.ALLOW, name, *conditions)

    for name in _ALLOWED:
        allow(name)
    for request in _IOCTLS:
        allow("ioctl", pyseccomp.Arg(1, pyseccomp.EQ, request))
    for request in _FCNTLS:
        allow("fcntl", pyseccomp.Arg(1, pyseccomp.EQ, request))
    allow("prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))
    thread = _CLONE_THREAD
    allow("clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, thread | _CLONE_NEW, thread))
    # The flags of clone3 lie in memory, where no filter sees them; told it is missing, the C
    # library falls back to clone.
    if pyseccomp.resolve_syscall(native, "clone3") >= 0:
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
