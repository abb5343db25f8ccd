// A process all of whose bytes are its own: it sends itself what is made of one byte, through sockets in every way and
// through two functions that pass plaintext as a TLS library's do, and it has that byte all over its stack.
// Arguments: the byte, and how it is scheduled: its nice value, or `fifo` or `idle`.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// int pass_out(void *connection, const void *bytes, int length), and one for what comes in: each gives its length.
int pass_out(void *connection, const void *bytes, int length);
int pass_in(void *connection, void *bytes, int length);
__asm__(".globl pass_out\n.type pass_out,@function\npass_out: nop\nmov %edx, %eax\n"
        ".globl pass_out_return\npass_out_return: ret\n"
        ".globl pass_in\n.type pass_in,@function\npass_in: nop\nmov %edx, %eax\n"
        ".globl pass_in_return\npass_in_return: ret\n");

// Bytes of a piece, and of two: whole, two records of TLS sizes, ends only, pieces of 16 KiB.
static const size_t LENGTHS[] = {40, 200, 900, 3000, 9000, 17000, 40000};
static char bytes[40000], back[40000];

static void take(int socket, size_t length, int way) {
    while (length > 0) {
        struct iovec half[2] = {{back, length / 2}, {back + length / 2, length - length / 2}};
        struct msghdr message = {.msg_iov = half, .msg_iovlen = 2};
        ssize_t got = way == 0 ? read(socket, back, length) : way == 1 ? readv(socket, half, 2)
                    : way == 2 ? recvmsg(socket, &message, 0) : recv(socket, back, length, 0);
        if (got <= 0) exit(1);
        length -= (size_t)got;
    }
}

static void turn(int ends[2], size_t length, int way) {
    struct iovec half[2] = {{bytes, length / 2}, {bytes + length / 2, length - length / 2}};
    struct msghdr message = {.msg_iov = half, .msg_iovlen = 2};
    ssize_t sent = way == 0 ? write(ends[0], bytes, length) : way == 1 ? writev(ends[0], half, 2)
                 : way == 2 ? sendmsg(ends[0], &message, 0) : send(ends[0], bytes, length, 0);
    if (sent <= 0) exit(1);
    take(ends[1], (size_t)sent, way);
    pass_out(ends, bytes, (int)length);
    pass_in(ends, back, (int)length);
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

int main(int count, char **arguments) {
    (void)count;
    int byte = atoi(arguments[1]);
    char stack[8192], name[16];
    memset(stack, byte, sizeof stack);
    memset(bytes, byte, sizeof bytes);
    memset(back, byte, sizeof back);
    snprintf(name, sizeof name, "canary %d", byte);
    prctl(PR_SET_NAME, name);
    int is_fifo = strcmp(arguments[2], "fifo") == 0;
    struct sched_param priority = {.sched_priority = is_fifo};
    if (is_fifo) sched_setscheduler(0, SCHED_FIFO, &priority);
    else if (strcmp(arguments[2], "idle") == 0) sched_setscheduler(0, SCHED_IDLE, &priority);
    else setpriority(PRIO_PROCESS, 0, atoi(arguments[2]));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 1;
    int room = 1 << 17;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    for (unsigned number = (unsigned)byte;; number++) {
        long began = now();
        turn(ends, LENGTHS[number % 7], (int)(number / 7 % 4));
        // Whoever has a real-time priority comes back into whatever the others are in, and leaves them most of the time.
        long pause = is_fifo ? 300000 + 8 * (now() - began) : number % 16 == 0 ? 50000 : 0;
        struct timespec rest = {pause / 1000000000, pause % 1000000000};
        if (pause > 0) nanosleep(&rest, NULL);
        if (stack[number % sizeof stack] != (char)byte) return 2;
    }
}
