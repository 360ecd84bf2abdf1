"""`python -m tests.graders.denied NAMES PROGRAM …`: the program on a machine that lacks things.

NAMES are `namespaces` (as in a container with default settings) and `landlock` (an older kernel),
joined by a comma; both are made to fail here as they fail there, by a filter of system calls.
"""

import errno
import os
import sys

import pyseccomp


def main() -> None:
    missing, *command = sys.argv[1:]
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused = pyseccomp.ERRNO(errno.EPERM)
    if "namespaces" in missing:
        for call, position in (("unshare", 0), ("clone", 0)):
            for flag in (0x00020000, 0x10000000, 0x20000000):
                condition = pyseccomp.Arg(position, pyseccomp.MASKED_EQ, flag, flag)
                rules.add_rule(refused, call, condition)
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        rules.add_rule(refused, "mount")
    if "landlock" in missing:
        for number in (444, 445, 446):
            rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), number)
    rules.load()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
