/* Counts primes on clones: the parent forks, each clone takes a share of the numbers and exits with what
 * it has counted, and the parent adds up. The same in every language here; see ../README.md. */
#include <stdio.h>

#include "sf.h"

#define CLONES 4
#define LIMIT 1000

static int is_prime(uint32_t n) {
    for (uint32_t d = 2; d * d <= n; d++)
        if (n % d == 0)
            return 0;
    return n >= 2;
}

/* Primes among first, first + step, first + 2 * step ... below LIMIT. */
static uint32_t primes(uint32_t first, uint32_t step) {
    uint32_t found = 0;
    for (uint32_t n = first; n < LIMIT; n += step)
        found += (uint32_t)is_prime(n);
    return found;
}

static int failed(const char *call) {
    fprintf(stderr, "sf-example c: %s: %s\n", call, sf_error());
    return 1;
}

int main(void) {
    struct sf_ticket ticket;
    struct sf_end ends[CLONES];
    if (sf_request_ticket(CLONES, &ticket) < 0)
        return failed("sf_request_ticket");
    int place = sf_clone(ticket);
    if (place < 0)
        return failed("sf_clone");
    if (place > 0) {
        sf_exit(primes((uint32_t)place, ticket.clones));
        return failed("sf_exit");
    }
    int count = sf_join(ticket, ends, CLONES);
    if (count < 0)
        return failed("sf_join");
    uint32_t all = 0;
    for (int i = 0; i < count; i++)
        all += ends[i].status;
    printf("sf-example c: %u primes below %d, counted by %d clones\n", all, LIMIT, count);
    return 0;
}
