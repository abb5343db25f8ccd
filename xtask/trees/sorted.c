// The C library calls back into the program, prints, and runs a signal handler.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

volatile unsigned long sink;

__attribute__((noinline)) void handler(int signal) {
    for (int i = 0; i < 100000; i++) sink += signal;
}

__attribute__((noinline)) int compare(const void *one, const void *other) {
    return *(const int *)one - *(const int *)other;
}

__attribute__((noinline)) void sort(void) {
    static int rows[20000];
    for (int i = 0; i < 20000; i++) rows[i] = (i * 7919) % 10007;
    qsort(rows, 20000, sizeof *rows, compare);
    sink++;
}

__attribute__((noinline)) void print(void) {
    static char text[4096];
    for (int i = 0; i < 20000; i++) snprintf(text, sizeof text, "%d %f %s", i, i / 3.0, "text");
    sink++;
}

int main(void) {
    struct itimerval often = {{0, 2000}, {0, 2000}};
    signal(SIGALRM, handler);
    setitimer(ITIMER_REAL, &often, 0);
    for (;;) {
        sort();
        print();
    }
}
