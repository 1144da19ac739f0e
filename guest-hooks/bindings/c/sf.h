/* SnowFlock's calls from inside a guest: VM fork with the habits of fork(2).
 *
 * One process of the guest asks, the whole guest is forked, and the call returns in the parent and in
 * every clone, in the same process and thread, with 0 in the parent and the
 * clone's place among those of its ticket (1, 2, ...) in a clone.
 *
 *     struct sf_ticket ticket;
 *     if (sf_request_ticket(4, &ticket) < 0) ...        // the right to ticket.clones <= 4 clones
 *     int id = sf_clone(ticket);                        // the fork
 *     if (id > 0) sf_exit(part_of_the_work(id));        // a clone: ends here
 *     struct sf_end ends[4];
 *     int n = sf_join(ticket, ends, 4);                 // the parent: waits for all clones
 *
 * Every call returns -1 when it fails; sf_error() says why, and errno holds ECONNREFUSED, EPERM and the
 * like when the system said so, EPROTO for an answer that is none, and EACCES when the host refused.
 * Calls may be made from several threads; each blocks its own thread only.
 *
 * ../../CONTRACT.md describes what the host promises, and what a policy may refuse.
 */
#ifndef SF_H
#define SF_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The right to so many clones, to be used once. */
struct sf_ticket {
    uint32_t id;
    uint32_t clones;
};

/* How a clone ended. */
struct sf_end {
    uint32_t place;
    int exited;      /* 0: it ended without sf_exit */
    uint32_t status; /* what it said to sf_exit */
};

/* Asks for `wanted` clones; fewer may be granted. 0 or -1. */
int sf_request_ticket(uint32_t wanted, struct sf_ticket *ticket);

/* Forks: checkpoint and clones in one. 0 in the parent, once all clones are there; 1, 2, ... in the clones;
 * or -1. */
int sf_clone(struct sf_ticket ticket);

/* Freezes the parent as it is now, for sf_create_clones. Returns in the parent with 0 and the checkpoint,
 * and in each clone made of it later with the clone's place (then *checkpoint is how many there are); or -1. */
int sf_checkpoint_parent(uint32_t *checkpoint);

/* Makes clones of a checkpoint, which go on where sf_checkpoint_parent returned. Their number, or -1. */
int sf_create_clones(struct sf_ticket ticket, uint32_t checkpoint);

/* Ends this clone: the whole VM. Returns only if it is refused, with -1. */
int sf_exit(uint32_t status);

/* Waits until all clones of a ticket have ended. Fills at most `room` ends, in the order of their places.
 * How many clones there were, or -1. */
int sf_join(struct sf_ticket ticket, struct sf_end *ends, size_t room);

/* Ends the clones of a ticket, or gives an unused one back. How many ended, or -1. */
int sf_kill(struct sf_ticket ticket);

/* This VM's FLURRY_CLONE_ID and FLURRY_CLONES: unlike places, IDs are never used again. */
int sf_id(uint32_t *clones);

/* Why the last call of this thread failed. */
const char *sf_error(void);

#ifdef __cplusplus
}
#endif

#endif
