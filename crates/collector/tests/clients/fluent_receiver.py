"""A receiver of the fluent forward protocol, version 1, made of its specification and an independent MessagePack library.

Listens on a free port of the loopback and prints it; then prints each entry as a line of JSON. Tears the first connection
after one message without an acknowledgement; acknowledges everything later.
"""

import json
import socket
import struct
import sys

import msgpack


def entry_time(ext):
    assert ext.code == 0 and len(ext.data) == 8, ext
    seconds, nanos = struct.unpack(">II", ext.data)
    return f"{seconds}.{nanos:09}"


def serve(connection, torn):
    unpacker = msgpack.Unpacker(raw=False)
    while data := connection.recv(65536):
        unpacker.feed(data)
        for tag, entries, options in unpacker:
            assert options["size"] == len(entries), options
            if torn:
                return
            for time, record in entries:
                print(json.dumps([tag, entry_time(time), record]), flush=True)
            connection.sendall(msgpack.packb({"ack": options["chunk"]}))


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
torn = True
while True:
    connection, _ = listener.accept()
    with connection:
        serve(connection, torn)
    torn = False
