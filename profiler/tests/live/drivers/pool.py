"""A pool of connections that have been used and are idle when the recording begins: every other one has prepared another
statement. `pool.py DRIVER` prints `ready`, waits for a line, and uses each of them."""

import asyncio
import sys
import time

CONNECTIONS, WARM, CALLS = 10, 6, 50
TEXTS = ("SELECT name FROM items WHERE id = {}", "SELECT note, id FROM items WHERE id = {}")
ERROR = "SELECT 1 / (id - id) FROM items WHERE id = 1"


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


def use(connect, run):
    connections = [connect() for _ in range(CONNECTIONS)]

    def round(call):
        for number, connection in enumerate(connections):
            run(connection, TEXTS[number % 2], call % 100 + 1)

    for call in range(WARM):
        round(call)
    ready()
    for call in range(CALLS):
        round(call)
        if call == WARM:
            # Once each of them is idle for a while, as in a pool.
            time.sleep(0.1)
    for connection in connections:
        run(connection, None, None)
    print("done", flush=True)
    sys.stdin.readline()


def with_psycopg2():
    import psycopg2

    def connect():
        connection = psycopg2.connect("")
        connection.autocommit = True
        return connection

    def run(connection, text, key):
        cursor = connection.cursor()
        if text is None:
            try:
                cursor.execute(ERROR)
            except psycopg2.Error as error:
                assert error.pgcode == "22012"
            return
        cursor.execute(text.format("%s"), (key,))
        assert len(cursor.fetchall()) == 1

    use(connect, run)


def with_psycopg():
    import psycopg

    def run(connection, text, key):
        if text is None:
            try:
                connection.execute(ERROR)
            except psycopg.Error as error:
                assert error.sqlstate == "22012"
            return
        assert len(connection.execute(text.format("%s"), (key,)).fetchall()) == 1

    use(lambda: psycopg.connect("", autocommit=True), run)


def with_asyncpg():
    import asyncpg

    loop = asyncio.new_event_loop()

    def run(connection, text, key):
        async def ask():
            if text is None:
                try:
                    await connection.execute(ERROR)
                except asyncpg.PostgresError as error:
                    assert error.sqlstate == "22012"
                return
            assert len(await connection.fetch(text.format("$1"), key)) == 1

        loop.run_until_complete(ask())

    use(lambda: loop.run_until_complete(asyncpg.connect(ssl=False)), run)


{"psycopg2": with_psycopg2, "psycopg": with_psycopg, "asyncpg": with_asyncpg}[sys.argv[1]]()
