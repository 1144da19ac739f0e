/* The calls of sf.h: a line to the agent's socket, a line back. */
#include "sf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_PATH "/run/flurry/api"
/* An answer names at most 48 clones of at most 22 characters each. */
#define LONGEST_ANSWER 2048

static _Thread_local char why[256];

const char *sf_error(void) { return why; }

static int fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    errno = error;
    return -1;
}

static int connect_to_agent(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("SF_SOCKET") ? getenv("SF_SOCKET") : SOCKET_PATH;
    if (strlen(path) >= sizeof address.sun_path)
        return fail(ENAMETOOLONG, "the path of the agent's socket is too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(errno, "no socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;
        close(fd);
        return fail(error, "no agent at %s: %s", path, strerror(error));
    }
    return fd;
}

static int send_all(int fd, const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t sent = send(fd, text, left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return fail(errno, "asking the agent: %s", strerror(errno));
        if (sent > 0) {
            text += sent;
            left -= (size_t)sent;
        }
    }
    return 0;
}

/* Reads a line into `answer`, without its end. In a clone this is where it wakes up. */
static int read_line(int fd, char *answer) {
    size_t length = 0;
    while (length < LONGEST_ANSWER - 1) {
        ssize_t count = read(fd, answer + length, LONGEST_ANSWER - 1 - length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail(errno, "waiting for the agent: %s", strerror(errno));
        if (count == 0)
            return fail(EPROTO, "the agent has hung up");
        length += (size_t)count;
        if (answer[length - 1] == '\n') {
            answer[length - 1] = '\0';
            return 0;
        }
    }
    return fail(EPROTO, "the agent's answer is too long");
}

/* Asks, and returns the words after "ok" in `answer`, which has LONGEST_ANSWER bytes. */
static int ask(char *answer, const char *format, ...) {
    char line[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    int fd = connect_to_agent();
    if (fd < 0)
        return -1;
    int result = send_all(fd, line) < 0 ? -1 : read_line(fd, answer);
    int error = errno;
    close(fd);
    errno = error;
    if (result < 0)
        return -1;
    if (strncmp(answer, "error ", 6) == 0)
        return fail(EACCES, "%.200s", answer + 6);
    if (strncmp(answer, "ok", 2) != 0)
        return fail(EPROTO, "the agent's answer is none: %.100s", answer);
    memmove(answer, answer + 2, strlen(answer + 2) + 1);
    return 0;
}

/* Takes the next number off the words. */
static int number(char **words, uint32_t *value) {
    char *end;
    errno = 0;
    unsigned long read = strtoul(*words, &end, 10);
    if (end == *words || errno != 0 || read > UINT32_MAX)
        return fail(EPROTO, "the agent's answer lacks a number");
    *value = (uint32_t)read;
    *words = end;
    return 0;
}

static int two_numbers(char *words, uint32_t *first, uint32_t *second) {
    return number(&words, first) < 0 || number(&words, second) < 0 ? -1 : 0;
}

int sf_request_ticket(uint32_t wanted, struct sf_ticket *ticket) {
    char answer[LONGEST_ANSWER];
    if (ask(answer, "ticket %" PRIu32 "\n", wanted) < 0)
        return -1;
    return two_numbers(answer, &ticket->id, &ticket->clones);
}

int sf_clone(struct sf_ticket ticket) {
    char answer[LONGEST_ANSWER];
    uint32_t id, clones;
    if (ask(answer, "clone %" PRIu32 "\n", ticket.id) < 0 || two_numbers(answer, &id, &clones) < 0)
        return -1;
    return (int)id;
}

int sf_checkpoint_parent(uint32_t *checkpoint) {
    char answer[LONGEST_ANSWER];
    uint32_t id;
    if (ask(answer, "checkpoint\n") < 0 || two_numbers(answer, &id, checkpoint) < 0)
        return -1;
    return (int)id;
}

static int ask_for_one(const char *format, uint32_t first, uint32_t second) {
    char answer[LONGEST_ANSWER], *words = answer;
    uint32_t value;
    if (ask(answer, format, first, second) < 0 || number(&words, &value) < 0)
        return -1;
    return (int)value;
}

int sf_create_clones(struct sf_ticket ticket, uint32_t checkpoint) {
    return ask_for_one("create %" PRIu32 " %" PRIu32 "\n", ticket.id, checkpoint);
}

int sf_exit(uint32_t status) {
    char answer[LONGEST_ANSWER];
    return ask(answer, "exit %" PRIu32 "\n", status) < 0 ? -1 : fail(EPROTO, "the host lets this VM go on");
}

int sf_join(struct sf_ticket ticket, struct sf_end *ends, size_t room) {
    char answer[LONGEST_ANSWER], *words = answer;
    int count = 0;
    if (ask(answer, "join %" PRIu32 "\n", ticket.id) < 0)
        return -1;
    for (; *words != '\0'; count++) {
        struct sf_end end = {0};
        if (number(&words, &end.place) < 0 || *words++ != '=')
            return fail(EPROTO, "the agent's answer lacks an end");
        end.exited = *words != '-';
        if (!end.exited)
            words++;
        else if (number(&words, &end.status) < 0)
            return -1;
        if ((size_t)count < room)
            ends[count] = end;
    }
    return count;
}

int sf_kill(struct sf_ticket ticket) {
    char answer[LONGEST_ANSWER], *words = answer;
    uint32_t count;
    if (ask(answer, "kill %" PRIu32 "\n", ticket.id) < 0 || number(&words, &count) < 0)
        return -1;
    return (int)count;
}

int sf_id(uint32_t *clones) {
    char answer[LONGEST_ANSWER];
    uint32_t id;
    if (ask(answer, "id\n") < 0 || two_numbers(answer, &id, clones) < 0)
        return -1;
    return (int)id;
}
