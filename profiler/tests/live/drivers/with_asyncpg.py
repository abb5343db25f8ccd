"""What asyncpg does: statements that are all prepared, Flush instead of Sync, portals for cursors."""

import asyncio
import io

import asyncpg

from deeds import done, failed, skipped


async def run(connection, text, *values):
    try:
        rows = await connection.fetch(text, *values)
    except asyncpg.PostgresError as error:
        failed(text, error.sqlstate)
        return None
    done(text, len(rows))
    return rows


async def parameters_and_batches(connection):
    for key in range(1, 11):
        rows = await run(connection, "SELECT id, name FROM items WHERE id = $1", key)
        assert [tuple(row) for row in rows] == [(key, f"item {key}")]
    # A prepared statement that is used again.
    above = await connection.prepare("SELECT count(*) FROM items WHERE id > $1")
    for key in range(12):
        assert await above.fetchval(key) == 100 - key
        done("SELECT count(*) FROM items WHERE id > $1", 1)
    # A batch, and one with an error in its middle.
    insert = "INSERT INTO items (id, name) VALUES ($1, $2)"
    await connection.executemany(insert, [(key, "batch") for key in range(1000, 1020)])
    for _ in range(20):
        done(insert, 1)
    try:
        await connection.executemany("INSERT INTO items (id) VALUES ($1)", [(1020,), (1,), (1021,), (1022,)])
    except asyncpg.PostgresError as error:
        done("INSERT INTO items (id) VALUES ($1)", 1)
        failed("INSERT INTO items (id) VALUES ($1)", error.sqlstate)
        skipped("INSERT INTO items (id) VALUES ($1)")
        skipped("INSERT INTO items (id) VALUES ($1)")


async def transactions_and_copy(connection):
    # A cursor, within a transaction: one call with several fetches.
    async with connection.transaction():
        done("BEGIN")
        rows = 0
        async for _ in connection.cursor("SELECT id FROM items WHERE id <= $1 ORDER BY id", 100, prefetch=40):
            rows += 1
        done("SELECT id FROM items WHERE id <= $1 ORDER BY id", rows)
    done("COMMIT")
    # A transaction that is rolled back.
    transaction = connection.transaction()
    await transaction.start()
    done("BEGIN")
    await connection.execute("INSERT INTO items (id, note) VALUES ($1, $2)", 2000, "never")
    done("INSERT INTO items (id, note) VALUES ($1, $2)", 1)
    await transaction.rollback()
    done("ROLLBACK")
    # COPY, both ways.
    lines = "".join(f"{key}\tcopied\n" for key in range(3000, 3200)).encode()
    await connection.copy_to_table("items", source=io.BytesIO(lines), columns=["id", "name"])
    done('COPY "items"("id", "name") FROM STDIN', 200)
    target = io.BytesIO()
    await connection.copy_from_query("SELECT id FROM items WHERE id >= 3000", output=target)
    done("COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT", target.getvalue().count(b"\n"))


async def errors_and_messages(connection, other):
    await run(connection, "SELECT 1 / $1::int", 0)
    await run(connection, "INSERT INTO items (id, name, note) VALUES ($1, '', '')", 1)
    await run(connection, "SELEC")
    # Notices, alone and between rows.
    notices = []
    connection.add_log_listener(lambda _, message: notices.append(message))
    await run(connection, "DO $$ BEGIN RAISE NOTICE 'to be read'; END $$")
    await run(connection, "SELECT loud(id) FROM items WHERE id <= $1", 5)
    await asyncio.sleep(0)
    assert len(notices) == 6
    # LISTEN and NOTIFY, while the connection is idle.
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("news", lambda *news: heard.set_result(news))
    done('LISTEN "news"')
    await run(other, "NOTIFY news, 'read all about it'")
    await asyncio.wait_for(heard, 10)


async def main():
    connection, other = await asyncpg.connect(ssl=False), await asyncpg.connect(ssl=False)
    await parameters_and_batches(connection)
    await transactions_and_copy(connection)
    await errors_and_messages(connection, other)
    # A cancelled query.
    try:
        await connection.execute("SELECT pg_sleep(30)", timeout=0.3)
    except asyncio.TimeoutError:
        failed("SELECT pg_sleep(30)", "57014")
    # A large row.
    rows = await run(connection, "SELECT repeat('x', $1)", 5_000_000)
    assert len(rows[0][0]) == 5_000_000
    # Several statements in one Query.
    await connection.execute("SELECT 'a', 1; ; SELECT id FROM items WHERE id < 4; UPDATE items SET note = 'x' WHERE id <= 7")
    done("SELECT 'a', 1", 1)
    done("SELECT id FROM items WHERE id < 4", 3)
    done("UPDATE items SET note = 'x' WHERE id <= 7", 7)
    await connection.close()
    await other.close()


asyncio.run(main())
