// What node-postgres does: each message of the extended protocol in a buffer of its own, cursors that are portals.

const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { setTimeout } = require("node:timers/promises");
const assert = require("node:assert");
const { Client, Query } = require("pg");
const Cursor = require("pg-cursor");
const copy = require("pg-copy-streams");

// Tells what was done, by what the driver answered.
const tell = (deed) => console.log(JSON.stringify(deed));
const done = (statement, rows) => tell({ statement, rows: rows ?? 0 });
const failed = (statement, error) => tell({ statement, error: error.code });

async function run(client, query) {
  const text = query.text ?? query;
  try {
    const result = await client.query(query);
    done(text, result.rowCount);
    return result.rows;
  } catch (error) {
    failed(text, error);
    return [];
  }
}

async function parametersAndBatches(client) {
  const text = "SELECT id, name FROM items WHERE id = $1";
  for (let key = 1; key <= 10; key++) {
    assert.deepEqual(await run(client, { text, values: [key] }), [{ id: key, name: `item ${key}` }]);
  }
  // A prepared statement that is used again.
  const above = { name: "above", text: "SELECT count(*) FROM items WHERE id > $1" };
  for (let key = 0; key < 12; key++) {
    const rows = await run(client, { ...above, values: [key] });
    assert.equal(Number(rows[0].count), 100 - key);
  }
  // Many at once, which the driver puts in a row.
  const insert = "INSERT INTO items (id, name) VALUES ($1, $2)";
  const keys = Array.from({ length: 20 }, (_, index) => 1000 + index);
  await Promise.all(keys.map((key) => run(client, { text: insert, values: [key, "batch"] })));
}

async function transactionsAndCopy(client) {
  // A cursor, within a transaction: one call with several fetches.
  await run(client, "BEGIN");
  const text = "SELECT id FROM items WHERE id <= $1 ORDER BY id";
  const cursor = client.query(new Cursor(text, [100]));
  let rows = 0;
  for (const expected of [40, 40, 20]) {
    const fetched = await cursor.read(40);
    assert.equal(fetched.length, expected);
    rows += fetched.length;
  }
  await cursor.close();
  done(text, rows);
  await run(client, "COMMIT");
  // A transaction that is rolled back.
  await run(client, "BEGIN");
  await run(client, { text: "INSERT INTO items (id) VALUES ($1)", values: [2000] });
  await run(client, "ROLLBACK");
  // COPY, both ways.
  const lines = Array.from({ length: 200 }, (_, index) => `${3000 + index}\tcopied\n`);
  const from = client.query(copy.from("COPY items (id, name) FROM STDIN"));
  await pipeline(Readable.from(lines), from);
  done("COPY items (id, name) FROM STDIN", from.rowCount);
  const query = "COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT";
  let got = "";
  for await (const piece of client.query(copy.to(query))) got += piece;
  done(query, got.split("\n").length - 1);
}

async function errorsAndMessages(client, other) {
  await run(client, { text: "SELECT 1 / $1::int", values: [0] });
  await run(client, { text: "INSERT INTO items (id) VALUES ($1)", values: [1] });
  await run(client, "SELEC");
  // Notices, alone and between rows.
  const notices = [];
  client.on("notice", (notice) => notices.push(notice));
  await run(client, "DO $$ BEGIN RAISE NOTICE 'to be read'; END $$");
  await run(client, { text: "SELECT loud(id) FROM items WHERE id <= $1", values: [5] });
  assert.equal(notices.length, 6);
  // LISTEN and NOTIFY, while the connection is idle.
  await run(client, "LISTEN news");
  const heard = new Promise((resolve) => client.once("notification", resolve));
  await run(other, "NOTIFY news, 'read all about it'");
  await heard;
}

async function cancelled(client) {
  const text = "SELECT pg_sleep(30)";
  const query = new Query(text);
  const ended = new Promise((resolve) => query.once("error", resolve));
  client.query(query);
  await setTimeout(300);
  new Client().cancel(client, query);
  failed(text, await ended);
}

async function main() {
  const [client, other] = [new Client(), new Client()];
  await Promise.all([client.connect(), other.connect()]);
  await parametersAndBatches(client);
  await transactionsAndCopy(client);
  await errorsAndMessages(client, other);
  await cancelled(client);
  // A large row.
  const [row] = await run(client, { text: "SELECT repeat('x', $1)", values: [5000000] });
  assert.equal(row.repeat.length, 5000000);
  // Several statements in one Query.
  const texts = ["SELECT 'a', 1", "SELECT id FROM items WHERE id < 4", "UPDATE items SET note = 'x' WHERE id <= 7"];
  const results = await client.query(texts.join("; ;"));
  results.forEach((result, index) => done(texts[index], result.rowCount));
  await Promise.all([client.end(), other.end()]);
}

main();
