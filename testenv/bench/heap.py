# A heap of Python objects, or pages that are zero or all alike; it says how long it stood still, as the dirtier does, and that by
# the wall clock, because a restored tree's monotonic clock leaves out the time in which it was not there.
# Arguments: "objects" or "pages", and how many bytes.
import sys
import time

kind, size = sys.argv[1], int(sys.argv[2])


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


if kind == "pages":
    held = [b"\0" * (size // 2), b"the same" * (size // 16)]
else:
    held = []
    while resident() < size:
        n = len(held)
        held.extend({"id": i, "name": "customer-%d" % i, "balance": i * 7919 % 100003 / 100, "tags": ["t%d" % (i % 50), i]} for i in range(n, n + 2000))

turns, gap, last, said = 0, 0.0, time.time(), time.time()
while True:
    time.sleep(0.001)
    now = time.time()
    turns, gap, last = turns + 1, max(gap, now - last), now
    if now - said > 0.1:
        print('{"written":%d,"faults":0,"gap_ms":%.3f}' % (turns, gap * 1000), flush=True)
        gap, said = 0.0, now
