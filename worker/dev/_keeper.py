"""Run one command, never as root, for as long as the process that asked for it lives.

    python -I -S _keeper.py HOME SIGNAL:SECONDS,SIGNAL:SECONDS… COMMAND…

A script of its own, on the standard library alone, between Surefoot and each server. Standard input is the
lifeline: a pipe whose other end only the asking process holds. The kernel closes that end however the process
dies, SIGKILL included, so "stop" and "the parent is gone" are one path. PR_SET_PDEATHSIG instead would be
bound to the *thread* that started the server, would have to be set between fork and exec of a process that has
threads, and is Linux's alone. Standard output carries one line, the command's pid; standard error is its log.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

LIFELINE, REPORT, LOG = 0, 1, 2

# linux/capability.h, linux/prctl.h, linux/securebits.h, linux/sched.h
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
PR_GET_SECUREBITS, PR_SET_SECUREBITS = 27, 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
CLONE_NEWUSER = 0x10000000


def main(home: str, stops: str, *command: str) -> int:
    """Keep `command` until it ends or the lifeline does; its exit code, 128 + n for signal n."""
    ladder = [(int(signum), float(seconds)) for signum, _, seconds in (s.partition(":") for s in stops.split(","))]
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the asking thread's mask would come along into the server
    os.umask(0o077)
    _leave_root(home)
    return _keep(command, ladder)


def _keep(command: tuple[str, ...], ladder: list[tuple[int, float]]) -> int:
    nudges = _signals_as_bytes()
    # The asker may have died while this interpreter started; a server that it never saw must not come up.
    if select.select([LIFELINE], [], [], 0)[0]:
        return 0
    pid = _spawn(command)
    with suppress(OSError):  # nobody reads: then the lifeline is at its end as well, seen below
        os.write(REPORT, f"{pid}\n".encode())
    while True:
        ready = select.select([LIFELINE, nudges], [], [])[0]
        asked = LIFELINE in ready or (nudges in ready and _asks_to_stop(os.read(nudges, 64)))
        if (code := _exit_code(pid)) is not None:
            return code
        if asked:
            return _stop(pid, ladder, nudges)


def _stop(pid: int, ladder: list[tuple[int, float]], nudges: int) -> int:
    for signum, seconds in [*ladder, (signal.SIGKILL, 60.0)]:
        os.kill(pid, signum)  # cannot hit a stranger: the pid stays taken until this process reaps it
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if (code := _exit_code(pid)) is not None:
                return code
            if select.select([nudges], [], [], left)[0]:
                os.read(nudges, 64)
    return 1


def _spawn(command: tuple[str, ...]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        # What Python and this file ignore or catch would stay ignored across exec.
        for signum in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(LOG, 1)
        os.execv(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        os.write(LOG, f"surefoot: {command[0]}: {error}\n".encode())
    os._exit(127)


def _signals_as_bytes() -> int:
    """A pipe that gets each signal's number as a byte, so that one `select` waits for all there is."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return reader


def _asks_to_stop(signals: bytes) -> bool:
    return signal.SIGTERM in signals or signal.SIGINT in signals


def _exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# ── Not as root ──────────────────────────────────────────────────────────────────────────────────────────


def _leave_root(home: str) -> None:
    """Go on under a uid that Postgres accepts: neither 0 nor without an account (initdb looks it up).

    Dropping to `nobody` alone is not enough: root's checkout may lie under a folder that nobody else can
    enter, such as /root, and the binaries lie in it. Two ways keep the way in open, and each works where the
    other does not. An ambient capability needs only what Docker grants a container's root by default. A user
    namespace is for the root that can be nobody else (one uid mapped, or a file system that refuses chown),
    and for `docker run --user 12345`.
    """
    if os.geteuid() != 0 and _account_of(os.geteuid()):
        return
    failures = []
    ways: tuple[Callable[[str], None], ...] = (_become_nobody, _be_called_nobody)
    for way in ways:
        try:
            way(home)
        except (OSError, AttributeError, LookupError) as error:  # AttributeError: not Linux, no such call
            failures.append(f"{way.__name__.strip('_')}: {error}")
        else:
            return
    sys.exit(
        f"surefoot: Postgres refuses to run as uid {os.geteuid()}, and there is no way around it here "
        f"({'; '.join(failures)}). Run this as an ordinary user that has an account."
    )


def _become_nobody(home: str) -> None:
    """Switch to an unprivileged uid that may still read and enter what root may.

    The capability is ambient, since any other is lost at exec of a program under a uid that is not 0, and
    initdb starts postgres, which forks its backends. It grants nothing but reading where it can be had;
    Docker withholds that one and grants its bigger sister. All other capabilities end here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    account, capabilities = _account_for(home), _capabilities(libc)
    permitted = capabilities[1]
    capability = CAP_DAC_READ_SEARCH if permitted >> CAP_DAC_READ_SEARCH & 1 else CAP_DAC_OVERRIDE
    bit = 1 << capability
    # First, while nothing has been changed, what some kernels (gVisor) and containers cannot do.
    capabilities[2] |= bit
    _set_capabilities(libc, capabilities)
    _call(libc, "prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    # By default the kernel takes the ambient set away at the change of uid, and leaves capabilities out of
    # access(2), by which initdb and postgres look whether they can run their own binaries.
    bits = _call(libc, "prctl", PR_GET_SECUREBITS, 0, 0, 0, 0)
    _call(libc, "prctl", PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _own(home, account.pw_uid, account.pw_gid)
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    _set_capabilities(libc, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0))


def _be_called_nobody(home: str) -> None:
    """Stay who we are on disk, and carry another uid within a user namespace of our own."""
    account, uid, gid = _account_for(home), os.geteuid(), os.getegid()
    _own(home, uid, gid)  # an earlier start may have gone the other way
    _call(ctypes.CDLL(None, use_errno=True), "unshare", CLONE_NEWUSER)
    for name, line in (
        ("setgroups", "deny"),  # the kernel's condition for mapping a gid without privilege outside
        ("uid_map", f"{account.pw_uid} {uid} 1"),
        ("gid_map", f"{account.pw_gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  pathlib is a quarter of this file's start
            file.write(line)


def _account_of(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _account_for(home: str) -> pwd.struct_passwd:
    """The account that owns `home`, so that a start by root leaves a user's servers usable; else `nobody`.

    It must exist, since initdb asks for the name, and `nobody` is what every image has. Other programs of
    its can neither enter (the folder above `home` is root's, mode 0700) nor trace a process that carries a
    capability which they lack.
    """
    owner = os.stat(home).st_uid  # noqa: PTH116
    return (_account_of(owner) if owner else None) or pwd.getpwnam("nobody")


def _own(home: str, uid: int, gid: int) -> None:
    """Give `home` and all in it to `uid`; links are changed, never followed."""
    for folder, folders, files in os.walk(home):
        for name in (".", *folders, *files):
            path = f"{folder}/{name}"
            with suppress(FileNotFoundError):  # an initdb that outlived a crash may be clearing up after itself
                if os.lstat(path).st_uid != uid:
                    os.chown(path, uid, gid, follow_symlinks=False)


def _capabilities(libc: ctypes.CDLL) -> ctypes.Array[ctypes.c_uint32]:
    """This process's effective, permitted and inheritable sets: three low words, then three high ones."""
    sets = (ctypes.c_uint32 * 6)()
    _call(libc, "capget", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), sets)
    return sets


def _set_capabilities(libc: ctypes.CDLL, sets: ctypes.Array[ctypes.c_uint32]) -> None:
    _call(libc, "capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), sets)


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> int:
    # prctl reads unsigned longs; a Python int would be passed as a C int, with rubbish above it.
    longs = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    result = int(getattr(libc, name)(*longs))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
