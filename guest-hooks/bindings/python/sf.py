"""SnowFlock's calls from inside a guest: VM fork with the habits of os.fork().

One process of the guest asks, the whole guest is forked, and the call returns in the parent and in every
clone, in the same process and thread: with 0 in the parent, with 1, 2, ... in the clones.

    ticket = sf.request_ticket(4)
    place = sf.clone(ticket)
    if place:
        sf.exit(part_of_the_work(place, ticket.clones))
    statuses = sf.join(ticket)

Nothing but the standard library; each call blocks its own thread only. A call that fails raises SfError;
one that finds no agent raises OSError.
"""

import os
import socket
from typing import NamedTuple

SOCKET = "/run/flurry/api"


class SfError(Exception):
    """The host refused a call, and said why."""


class Ticket(NamedTuple):
    """The right to so many clones, to be used once."""

    id: int
    clones: int


def _ask(*words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(os.environ.get("SF_SOCKET", SOCKET))
        agent.sendall((" ".join(map(str, words)) + "\n").encode())
        answer = b""
        # In a clone this is where it wakes up.
        while not answer.endswith(b"\n"):
            more = agent.recv(4096)
            if not more:
                raise SfError("the agent has hung up")
            answer += more
    verdict, _, rest = answer.decode().strip().partition(" ")
    if verdict != "ok":
        raise SfError(rest)
    return rest.split()


def request_ticket(wanted):
    """Asks for the right to `wanted` clones; fewer may be granted."""
    number, clones = _ask("ticket", wanted)
    return Ticket(int(number), int(clones))


def clone(ticket):
    """Forks. Returns 0 in the parent, once all clones are there, and 1, 2, ... in the clones."""
    return int(_ask("clone", ticket.id)[0])


def checkpoint_parent():
    """Freezes the parent. Returns (0, checkpoint) there, and (place, clones) in clones made of it."""
    place, number = _ask("checkpoint")
    return int(place), int(number)


def create_clones(ticket, checkpoint):
    """Makes clones of a checkpoint; they go on where checkpoint_parent() returned. Returns their number."""
    return int(_ask("create", ticket.id, checkpoint)[0])


def exit(status=0):  # noqa: A001 (its name in the paper)
    """Ends this clone: the whole VM. Does not return."""
    _ask("exit", status)
    raise SfError("the host lets this VM go on")


def join(ticket):
    """Waits until all clones of a ticket have ended. Returns what each said to exit(); None if nothing."""
    ends = (end.partition("=")[2] for end in _ask("join", ticket.id))
    return [None if status == "-" else int(status) for status in ends]


def kill(ticket):
    """Ends the clones of a ticket, or gives an unused one back. Returns how many ended."""
    return int(_ask("kill", ticket.id)[0])


def identity():
    """This VM's FLURRY_CLONE_ID and FLURRY_CLONES."""
    number, clones = _ask("id")
    return int(number), int(clones)
