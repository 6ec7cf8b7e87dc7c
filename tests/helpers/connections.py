"""Records every connection that the Python processes of a command make, and every name that they look up.

`sitecustomize` is imported by each Python process that inherits the environment, those of Ray included. Processes without Python
are seen while they are connected (`open_connections`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

HOOK = """
import json, os, socket, sys

def _write(how, host):
    host = host.decode() if isinstance(host, bytes) else str(host)
    with open("/proc/self/cmdline", "rb") as file:
        line = json.dumps([how, host, file.read().replace(b"\\0", b" ").decode("utf-8", "replace")[:400]])
    file = os.open(os.environ["CONNECTIONS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (line + "\\n").encode())
    os.close(file)

def _record(event, args):
    if event == "socket.connect" and args[0].family != socket.AF_UNIX:
        _write("udp" if args[0].type == socket.SOCK_DGRAM else "tcp", args[1][0])
    elif event == "socket.getaddrinfo":
        _write("lookup", args[0])

sys.addaudithook(_record)
_write("start", "")
"""
FILE = "connections.jsonl"


def recording(folder: Path) -> Mapping[str, str]:
    """The environment in which a command's connections are recorded in `folder`."""
    (folder / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "CONNECTIONS_FILE": str(folder / FILE)}


def recorded(folder: Path) -> dict[str, dict[str, set[str]]]:
    """What was done ("start", "tcp", "udp", "lookup"), with which hosts, and the command lines of the processes."""
    found: dict[str, dict[str, set[str]]] = {"start": {}, "tcp": {}, "udp": {}, "lookup": {}}
    for line in (folder / FILE).read_text("utf-8").splitlines():
        how, host, process = json.loads(line)
        found[how].setdefault(host, set()).add(process)
    return found


def open_connections(pid: int) -> set[str]:
    """The addresses to which a process and its descendants have TCP connections now."""
    process, found = psutil.Process(pid), set[str]()
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found |= {connection.raddr.ip for connection in one.net_connections("tcp") if connection.raddr}
    return {address.removeprefix("::ffff:") for address in found}  # IPv4 over a socket of IPv6


def own_names() -> set[str]:
    """The addresses and names of this machine."""
    addresses = {one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found}
    return addresses | {
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "None",
        "",
        socket.gethostname(),
        socket.getfqdn(),
    }
