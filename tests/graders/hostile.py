"""Graders that mean harm. Each says how it may end: what was raised in it, or how its box ended."""

from dataclasses import dataclass

RAISED = "raised"  # python_grader_runtime_error
TIMEOUT, EXITED, PROTOCOL = "timeout", "exited", "protocol"  # python_grader_server_error_type
SCORED = "scored"  # a reward, which is nobody's business but its own


@dataclass(frozen=True)
class Hostile:
    """`body` is indented into `grade`, after its imports; `top` stands before it."""

    body: str
    ends: tuple[str, ...]
    says: str = ""
    top: str = ""

    @property
    def source(self) -> str:
        imports = "import ctypes, os, signal, socket, subprocess, sys, threading, time"
        lines = "\n".join(f"    {line}" for line in self.body.splitlines())
        return f"{imports}\n{self.top}\ndef grade(sample, item):\n{lines}\n    return 1\n"


# What `item` has: port, unix, abstract (listeners outside), secret (a file), pid (the worker's).
HOSTILE = {
    "fork bomb": Hostile("while True:\n    os.fork()", (RAISED,), "PermissionError"),
    "memory bomb": Hostile("x = [b'x' * (1 << 24) for _ in range(1 << 10)]", (RAISED, TIMEOUT)),
    "memory in C": Hostile("ctypes.memset(ctypes.create_string_buffer(1 << 40), 1, 9)", (RAISED,)),
    "endless loop": Hostile("while True:\n    pass", (TIMEOUT,)),
    "endless loop in C": Hostile("sum(iter(int, 1))", (TIMEOUT,)),
    "huge power": Hostile("9 ** 9 ** 9 ** 9", (TIMEOUT, RAISED)),
    "sleep": Hostile("time.sleep(1e6)", (TIMEOUT,)),
    "deaf to signals": Hostile(
        "for n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError:\n        pass\nwhile True:\n    pass",
        (TIMEOUT,),
    ),
    "swallows everything": Hostile(
        "while True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass",
        (TIMEOUT,),
    ),
    "connect": Hostile("socket.create_connection(('127.0.0.1', item['port']))", (RAISED,)),
    "connect to a path": Hostile(
        "socket.socket(socket.AF_UNIX).connect(item['unix'])", (RAISED,), "PermissionError"
    ),
    "connect to a name": Hostile(
        "socket.socket(socket.AF_UNIX).connect(chr(0) + item['abstract'])", (RAISED,)
    ),
    "look up a name": Hostile("socket.getaddrinfo('example.com', 80)", (RAISED,)),
    "raw socket call": Hostile(
        "if ctypes.CDLL(None).socket(2, 1, 0) < 0:\n    raise OSError('refused')", (RAISED,)
    ),
    "read a file": Hostile("return len(open(item['secret']).read())", (RAISED,)),
    "read passwd": Hostile("return len(open('/etc/passwd').read())", (RAISED,)),
    "read by C": Hostile(
        "f = ctypes.CDLL(None).open(item['secret'].encode(), 0)\n"
        "if f < 0:\n    raise OSError('refused')",
        (RAISED,),
    ),
    "others' environment": Hostile("return len(open('/proc/1/environ').read())", (RAISED,)),
    "own environment": Hostile("raise ValueError(sorted(os.environ))", (RAISED,), "ValueError"),
    "a symlink": Hostile("os.symlink(item['secret'], '/tmp/link')", (RAISED,)),
    "write to Python": Hostile("open(os.__file__, 'a').write('x')", (RAISED,)),
    "replace a package": Hostile("os.rename(os.__file__, os.__file__ + '.old')", (RAISED,)),
    "fill the disk": Hostile(
        "for n in range(10**6):\n    open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))", (RAISED,)
    ),
    "fill memory files": Hostile("os.memfd_create('x')", (RAISED,), "PermissionError"),
    "a shell": Hostile("subprocess.run('touch /tmp/x', shell=True, check=True)", (RAISED,)),
    "os.system": Hostile(
        "if os.system('touch /tmp/x') != 0:\n    raise OSError('refused')", (RAISED,)
    ),
    "another program": Hostile("os.execv(sys.executable, ['python'])", (RAISED,)),
    "kill the worker": Hostile("os.kill(item['pid'], 9)", (RAISED,), "Error"),
    "kill its parent": Hostile("os.kill(os.getppid(), 9)", (RAISED,), "PermissionError"),
    "kill everything": Hostile("os.kill(-1, 9)", (RAISED,), "PermissionError"),
    "a signal by a pipe": Hostile(
        "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, item['pid'])", (RAISED,)
    ),
    "ptrace": Hostile(
        "if ctypes.CDLL(None).ptrace(16, item['pid'], 0, 0) < 0:\n    raise OSError('refused')",
        (RAISED,),
    ),
    "new namespaces": Hostile(
        "if ctypes.CDLL(None).unshare(0x10000000) < 0:\n    raise OSError('refused')", (RAISED,)
    ),
    "more rights": Hostile("os.setuid(0)", (RAISED,), "PermissionError"),
    "more memory": Hostile(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", (RAISED,)
    ),
    "limits of others": Hostile(
        "import resource\nresource.prlimit(item['pid'], resource.RLIMIT_NOFILE, (0, 0))", (RAISED,)
    ),
    "class walk": Hostile(
        "for kind in object.__subclasses__():\n"
        "    if kind.__name__ == '_wrap_close':\n"
        "        return kind.__init__.__globals__['system']('true') + 'x'",
        (RAISED,),
    ),
    "huge output": Hostile("while True:\n    print('x' * (1 << 20), flush=True)", (TIMEOUT,)),
    "huge error": Hostile("raise ValueError('x' * (1 << 26))", (RAISED, TIMEOUT)),
    "half a character": Hostile("raise ValueError(chr(0xD800))", (RAISED,), "ValueError: ?"),
    "huge number": Hostile("return 10 ** 100000", (RAISED,), "OverflowError"),
    "nan": Hostile("return float('nan')", (RAISED,), "not a finite number"),
    "infinity": Hostile("return float('-inf')", (RAISED,), "not a finite number"),
    "a string": Hostile("return '1.0'", (RAISED,), "not a number"),
    "nothing": Hostile("return None", (RAISED,), "not a number"),
    "recursion": Hostile("return grade(sample, item)", (RAISED,), "RecursionError"),
    "recursion in C": Hostile(
        "sys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(1 << 22):\n    x = [x]\nrepr(x)",
        (EXITED, RAISED, TIMEOUT),
    ),
    "thread bomb": Hostile(
        "while True:\n    threading.Thread(target=time.sleep, args=(1e6,)).start()",
        (RAISED, TIMEOUT),
    ),
    "a thread left behind": Hostile(
        "def spin():\n    while True:\n        pass\n"
        "threading.Thread(target=spin, daemon=True).start()",
        (SCORED,),
    ),
    "sys.exit": Hostile("sys.exit(0)", (RAISED,), "SystemExit"),
    "os._exit": Hostile("os._exit(0)", (EXITED,)),
    "a crash": Hostile("ctypes.string_at(0)", (EXITED,)),
    "abort": Hostile("os.abort()", (EXITED,)),
    "closes everything": Hostile("os.closerange(0, 64)", (EXITED, PROTOCOL)),
    "fake replies": Hostile(
        "for fd in range(64):\n    try:\n"
        "        os.write(fd, b'{\"case\": 1, \"value\": 5.0}\\n' * 99)\n"
        "    except OSError:\n        pass",
        (SCORED, PROTOCOL),
    ),
    "strange replies": Hostile(
        "for fd in range(64):\n    try:\n        os.write(fd, b'\\x00[[[[\\n')\n"
        "    except OSError:\n        pass",
        (PROTOCOL,),
    ),
    "an endless reply": Hostile(
        "while True:\n    for fd in range(3, 64):\n        try:\n"
        "            os.write(fd, b'x' * 65536)\n        except OSError:\n            pass",
        (EXITED, TIMEOUT),
    ),
    "work when it ends": Hostile(
        "import atexit\natexit.register(time.sleep, 1e6)", (SCORED,),
        top="class Last:\n    def __del__(self):\n        time.sleep(1e6)\nlast = Last()",
    ),
    "harm when it is loaded": Hostile("pass", (RAISED,), "PermissionError", top="os.fork()"),
    "never loaded": Hostile("pass", (TIMEOUT,), top="while True: pass"),
    "a lying float": Hostile(
        "class Number:\n    def __float__(self):\n        while True: pass\nreturn Number()",
        (TIMEOUT,),
    ),
    "a lying error": Hostile(
        "class Liar(Exception):\n    def __str__(self):\n        os._exit(0)\nraise Liar", (EXITED,)
    ),
}  # fmt: skip
