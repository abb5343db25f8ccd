"""What psycopg 3 does: the extended protocol, statements that it prepares when they come often, pipelines, and cursors
of the server."""

import threading

import psycopg

from deeds import done, failed, skipped

connection = psycopg.connect("client_encoding=utf8", autocommit=True)
other = psycopg.connect("client_encoding=utf8", autocommit=True)
notices = []
connection.add_notice_handler(notices.append)


def sent(text):
    """The text as it is sent: placeholders are numbered."""
    parts = text.split("%s")
    return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))


def run(text, values=None, by=connection, **how):
    try:
        cursor = by.execute(text, values, **how)
    except psycopg.Error as error:
        failed(sent(text), error.sqlstate)
        return None
    done(sent(text), cursor.rowcount)
    return cursor


# Parameters. From the sixth time on it is prepared.
for key in range(1, 11):
    assert run("SELECT id, name FROM items WHERE id = %s", (key,)).fetchall() == [(key, f"item {key}")]

# A prepared statement that is used again.
for key in range(12):
    cursor = run("SELECT count(*) FROM items WHERE id > %s", (key,), prepare=True)
    assert cursor.fetchone() == (100 - key,)

# A pipeline, executemany (which is one too), and a pipeline with an error in its middle.
insert = "INSERT INTO items (id, name) VALUES (%s, %s)"
with connection.pipeline():
    for key in range(1000, 1020):
        connection.execute(insert, (key, "pipeline"))
for _ in range(20):
    done(sent(insert), 1)
with connection.cursor() as cursor:
    cursor.executemany("INSERT INTO items (id, note) VALUES (%s, %s)", [(key, "many") for key in range(1020, 1050)])
for _ in range(30):
    done("INSERT INTO items (id, note) VALUES ($1, $2)", 1)
try:
    with connection.pipeline():
        connection.execute("SELECT name FROM items WHERE id = %s", (1,))
        # Late: what follows is sent before the driver hears of the error.
        connection.execute("SELECT 1 / (%s::int * length(pg_sleep(0.3)::text))", (0,))
        connection.execute("SELECT note FROM items WHERE id = %s", (1,))
        connection.execute("SELECT note, name FROM items WHERE id = %s", (1,))
except psycopg.Error as error:
    done("SELECT name FROM items WHERE id = $1", 1)
    failed("SELECT 1 / ($1::int * length(pg_sleep(0.3)::text))", error.sqlstate)
    skipped("SELECT note FROM items WHERE id = $1")
    skipped("SELECT note, name FROM items WHERE id = $1")

# A cursor, within a transaction.
with connection.transaction():
    done("BEGIN")
    with connection.cursor("some") as some:
        some.execute("SELECT id FROM items WHERE id <= %s ORDER BY id", (100,))
        done('DECLARE "some" CURSOR FOR SELECT id FROM items WHERE id <= $1 ORDER BY id')
        for rows in (40, 40, 20):
            assert len(some.fetchmany(40)) == rows
            done("FETCH FROM (SELECT id FROM items WHERE id <= $1 ORDER BY id)", rows)
    done('CLOSE "some"')
done("COMMIT")

# A transaction that is rolled back.
with connection.transaction(force_rollback=True):
    done("BEGIN")
    run("INSERT INTO items (id) VALUES (%s)", (2000,))
# The driver forgets what it has prepared.
done("ROLLBACK")
done("DEALLOCATE ALL")

# COPY, both ways.
with connection.cursor().copy("COPY items (id, name) FROM STDIN") as copy:
    for key in range(3000, 3200):
        copy.write_row((key, "copied"))
done("COPY items (id, name) FROM STDIN", 200)
with connection.cursor().copy("COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT") as copy:
    done("COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT", len(list(copy.rows())))

# Errors.
run("SELECT 1 / 0")
run("INSERT INTO items (id) VALUES (%s)", (1,))
run("SELEC")

# Notices, alone and between rows.
run("DO $$ BEGIN RAISE NOTICE 'to be read'; END $$")
run("SELECT loud(id) FROM items WHERE id <= %s", (5,))
assert len(notices) == 6

# LISTEN and NOTIFY, while the connection is idle.
run("LISTEN news")
run("NOTIFY news, 'read all about it'", by=other)
assert len(list(connection.notifies(timeout=10, stop_after=1))) == 1

# A cancelled query.
timer = threading.Timer(0.3, connection.cancel)
timer.start()
run("SELECT pg_sleep(30)")
timer.join()

# A large row.
assert len(run("SELECT repeat('x', %s)", (5_000_000,)).fetchone()[0]) == 5_000_000

# Several statements in one Query.
cursor = connection.execute("SELECT 'a', 1; ; SELECT id FROM items WHERE id < 4; UPDATE items SET note = 'x' WHERE id <= 7")
for text in ("SELECT 'a', 1", "SELECT id FROM items WHERE id < 4", "UPDATE items SET note = 'x' WHERE id <= 7"):
    done(text, cursor.rowcount)
    cursor.nextset()

connection.close()
other.close()
