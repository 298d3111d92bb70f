"""Calls without a pause on one channel of grpcio's, beside a stream that stays open, while its connections come to their age.

usage: ageing.py APPLIANCE_DIR ADDRESS SECONDS. Ends with 1 where any call fails.
"""

import concurrent.futures
import pathlib
import queue
import sys
import time

import grpc

HOME, ADDRESS, SECONDS = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
SERVICE = "/muhurdar.seal.v1.SealService/"


def read(file):
    return (HOME / file).read_bytes()


credentials = grpc.ssl_channel_credentials(
    root_certificates=read("ca.crt"),
    private_key=read("clients/branch-1.key"),
    certificate_chain=read("clients/branch-1.crt"),
)
channel = grpc.secure_channel(ADDRESS, credentials)
# Messages as bytes: an empty one is a request for everything.
list_seals = channel.unary_unary(SERVICE + "ListSeals")
seal_stream = channel.stream_stream(SERVICE + "SealStream")

# Open from the first connection to the end, and still answered then: an item without anything is refused by itself.
items = queue.Queue()
answers = seal_stream(iter(items.get, None))
end = time.monotonic() + SECONDS


def caller(_):
    calls = 0
    while time.monotonic() < end:
        list_seals(b"")
        calls += 1
        # Without a pause a call is on its way at the very moment of the GOAWAY, and h2 takes its window update for an error.
        time.sleep(0.02)
    return calls


with concurrent.futures.ThreadPoolExecutor(2) as callers:
    calls = sum(callers.map(caller, range(2)))
items.put(b"")
assert next(answers), "the stream that was open is answered"
items.put(None)
assert list(answers) == [], "and ends in good order"
print(f"{calls} calls")
