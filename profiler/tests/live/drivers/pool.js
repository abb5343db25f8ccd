// What `pool.py` does, with node-postgres: statements that have a name are prepared.
const { Client } = require("pg");
const readline = require("readline");

const TEXTS = ["SELECT name FROM items WHERE id = $1", "SELECT note, id FROM items WHERE id = $1"];
const ERROR = "SELECT 1 / (id - id) FROM items WHERE id = 1";
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function main() {
    const clients = [];
    for (let number = 0; number < 10; number++) {
        const client = new Client({ ssl: false });
        await client.connect();
        clients.push(client);
    }
    async function round(call) {
        for (const [number, client] of clients.entries()) {
            const query = { name: "find", text: TEXTS[number % 2], values: [(call % 100) + 1] };
            const { rows } = await client.query(query);
            if (rows.length !== 1) throw new Error(`${rows.length} rows`);
        }
    }
    for (let call = 0; call < 6; call++) await round(call);
    console.log("ready");
    await lines.next();
    for (let call = 0; call < 50; call++) {
        await round(call);
        if (call === 6) await new Promise((go) => setTimeout(go, 100));
    }
    for (const client of clients) {
        const failed = await client.query(ERROR).catch((error) => error.code);
        if (failed !== "22012") throw new Error(failed);
    }
    console.log("done");
    await lines.next();
    process.exit();
}

main();
