"""Plain HTTP beside the WebSockets: http_load PORT CONNECTIONS

Each connection is kept alive and asks again as soon as it has its answer, until stdin
ends. Prints "ready" first, and how many answers there were last.
"""

import os
import select
import socket
import sys

REQUEST = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ANSWER = b"Hello."


def main() -> None:
    port, count = map(int, sys.argv[1:])
    stdin = sys.stdin.fileno()
    connections = [
        socket.create_connection(("127.0.0.1", port), 10) for _ in range(count)
    ]
    print("ready", flush=True)
    for connection in connections:
        connection.sendall(REQUEST)
    answers = 0
    while True:
        readable = select.select([stdin, *connections], [], [])[0]
        if stdin in readable:
            os.read(stdin, 64)
            print(answers, flush=True)
            return
        for ready in (each for each in connections if each in readable):
            answer = ready.recv(65536)
            # A small answer comes in one piece, or its end comes by itself.
            if not answer:
                sys.exit("http_load: ended by the server")
            if answer.endswith(ANSWER):
                answers += 1
                ready.sendall(REQUEST)


if __name__ == "__main__":
    main()
