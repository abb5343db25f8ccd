"""What psycopg2 does: simple Queries that have the values written into their texts, cursors and prepared statements of
SQL."""

import io
import threading

import psycopg2
from psycopg2 import extras

from deeds import done, failed, skipped


def connect():
    connection = psycopg2.connect("")
    connection.autocommit = True
    return connection


connection, other = connect(), connect()
cursor = connection.cursor()


def run(text, values=None, by=cursor):
    try:
        by.execute(text, values)
        done(by.query.decode(), by.rowcount)
    except psycopg2.Error as error:
        failed(by.query.decode(), error.pgcode)


# Parameters.
for key in range(1, 11):
    run("SELECT id, name FROM items WHERE id = %s", (key,))
    assert cursor.fetchall() == [(key, f"item {key}")]

# A prepared statement that is used again.
above = "SELECT count(*) FROM items WHERE id > $1"
run("PREPARE above (int) AS " + above)
for key in range(12):
    cursor.execute("EXECUTE above (%s)", (key,))
    done(above, cursor.rowcount)
    assert cursor.fetchone() == (100 - key,)
run("DEALLOCATE above")

# Batches: many statements in a Query, and many rows in one.
insert = "INSERT INTO items (id, name) VALUES (%s, %s)"
extras.execute_batch(cursor, insert, [(key, "batch") for key in range(1000, 1020)], page_size=8)
for key in range(1000, 1020):
    done(insert.replace("%s", "0"), 1)
extras.execute_values(cursor, "INSERT INTO items (id, note) VALUES %s", [(key, "many") for key in range(1020, 1050)])
done(cursor.query.decode(), cursor.rowcount)

# A cursor, within a transaction.
connection.autocommit = False
with connection.cursor("some") as some:
    some.execute("SELECT id FROM items WHERE id <= 100 ORDER BY id")
    done("BEGIN")
    done('DECLARE "some" CURSOR WITHOUT HOLD FOR SELECT id FROM items WHERE id <= 100 ORDER BY id')
    for rows in (40, 40, 20):
        assert len(some.fetchmany(40)) == rows
        done("FETCH FROM (SELECT id FROM items WHERE id <= 100 ORDER BY id)", rows)
done('CLOSE "some"')
connection.commit()
done("COMMIT")

# A transaction that is rolled back.
run("INSERT INTO items (id) VALUES (%s)", (2000,))
done("BEGIN")
connection.rollback()
done("ROLLBACK")
connection.autocommit = True

# COPY, both ways.
lines = "".join(f"{key}\tcopied\n" for key in range(3000, 3200))
cursor.copy_expert("COPY items (id, name) FROM STDIN", io.StringIO(lines))
done("COPY items (id, name) FROM STDIN", 200)
target = io.StringIO()
cursor.copy_expert("COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT", target)
done("COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT", target.getvalue().count("\n"))

# Errors, also in the middle of a Query.
run("SELECT 1 / 0")
run("INSERT INTO items (id) VALUES (1)")
run("SELEC")
try:
    cursor.execute("SELECT 'before'; SELECT 2 / 0; SELECT name FROM items")
except psycopg2.Error as error:
    done("SELECT 'before'", 1)
    failed("SELECT 2 / 0", error.pgcode)
    skipped("SELECT name FROM items")

# Notices, alone and between rows.
run("DO $$ BEGIN RAISE NOTICE 'to be read'; END $$")
run("SELECT loud(id) FROM items WHERE id <= 5")
assert len(connection.notices) == 6

# LISTEN and NOTIFY.
run("LISTEN news")
run("NOTIFY news, 'read all about it'", by=other.cursor())
run("SELECT 5 AS five")
assert len(connection.notifies) == 1

# A cancelled query.
timer = threading.Timer(0.3, connection.cancel)
timer.start()
run("SELECT pg_sleep(30)")
timer.join()

# A large row.
run("SELECT repeat('x', 5000000)")
assert len(cursor.fetchone()[0]) == 5_000_000

# Several statements in one Query.
cursor.execute("SELECT 'a', 1; ; SELECT id FROM items WHERE id < 4; UPDATE items SET note = 'x' WHERE id <= 7")
done("SELECT 'a', 1", 1)
done("SELECT id FROM items WHERE id < 4", 3)
done("UPDATE items SET note = 'x' WHERE id <= 7", cursor.rowcount)

connection.close()
other.close()
