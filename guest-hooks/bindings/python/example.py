#!/usr/bin/env python3
"""Counts primes on clones, in Python; see ../README.md."""

import sf

CLONES = 4
LIMIT = 1000


def is_prime(n):
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))


def main():
    ticket = sf.request_ticket(CLONES)
    place = sf.clone(ticket)
    if place:
        sf.exit(sum(map(is_prime, range(place, LIMIT, ticket.clones))))
    counts = sf.join(ticket)
    print(f"sf-example python: {sum(counts)} primes below {LIMIT}, counted by {len(counts)} clones")


main()
