"""Works as deep as the first argument says, beside as many waiting threads as the second one says."""

import sys
import threading

sys.setrecursionlimit(10_000)
DEPTH, WAITING = map(int, sys.argv[1:])
stop = threading.Event()
for _ in range(WAITING):
    threading.Thread(target=stop.wait, daemon=True).start()


def leaf():
    total = 0
    for i in range(20_000):
        total += i
    return total


def down(n):
    if n:
        return down(n - 1)
    return leaf()


def main():
    while True:
        down(DEPTH)


main()
