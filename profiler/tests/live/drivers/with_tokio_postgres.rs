//! What tokio-postgres does: it prepares everything in a round trip of its own, closes statements in the breath in which
//! it prepares the next, sends on one thread and receives on another, and puts what is asked for at once into a pipeline.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future, stream};
use serde_json::json;
use tokio::{sync::mpsc, time::sleep};
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, config::SslMode, types::ToSql,
};

type Done<T> = Result<T, Box<dyn Error>>;
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Tells what was done, by what the driver answered.
fn done(statement: &str, rows: u64) {
    println!("{}", json!({ "statement": statement, "rows": rows }));
}

fn failed(statement: &str, error: &tokio_postgres::Error) {
    let code = error.code().map(|code| code.code());
    println!("{}", json!({ "statement": statement, "error": code }));
}

/// A connection, and the notices and notifications that come on it.
async fn connect() -> Done<(Client, mpsc::UnboundedReceiver<AsyncMessage>)> {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let mut config = Config::new();
    config.host(of("PGHOST")).port(of("PGPORT").parse()?);
    config
        .user(of("PGUSER"))
        .password(of("PGPASSWORD"))
        .dbname(of("PGDATABASE"));
    config.ssl_mode(SslMode::Disable);
    let (client, mut connection) = config.connect(NoTls).await?;
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            let _ = send.send(message);
        }
    });
    Ok((client, receive))
}

/// Runs what returns rows; how many there are.
async fn run(client: &Client, text: &str, values: Values<'_>) -> usize {
    match client.query(text, values).await {
        Ok(rows) => {
            done(text, rows.len() as u64);
            rows.len()
        }
        Err(error) => {
            failed(text, &error);
            0
        }
    }
}

async fn parameters_and_batches(client: &Client) -> Done<()> {
    for key in 1..=10 {
        assert_eq!(
            run(client, "SELECT id, name FROM items WHERE id = $1", &[&key]).await,
            1
        );
    }
    // A prepared statement that is used again.
    let text = "SELECT count(*) FROM items WHERE id > $1";
    let above = client.prepare(text).await?;
    for key in 0..12_i32 {
        let row = client.query_one(&above, &[&key]).await?;
        assert_eq!(row.get::<_, i64>(0), i64::from(100 - key));
        done(text, 1);
    }
    // A pipeline, in which each has its own Sync, and one with an error in its middle.
    let text = "INSERT INTO items (id, name) VALUES ($1, 'pipeline')";
    let insert = client.prepare(text).await?;
    let keys: Vec<i32> = (1000..1020).chain([1, 1020, 1021]).collect();
    let values: Vec<[&(dyn ToSql + Sync); 1]> = keys.iter().map(|key| [key as _]).collect();
    let all = values.iter().map(|values| client.execute(&insert, values));
    for result in future::join_all(all).await {
        match result {
            Ok(rows) => done(text, rows),
            Err(error) => failed(text, &error),
        }
    }
    Ok(())
}

async fn transactions_and_copy(client: &mut Client) -> Done<()> {
    // A portal, within a transaction: one call with several fetches.
    let transaction = client.transaction().await?;
    done("START TRANSACTION", 0);
    let text = "SELECT id FROM items WHERE id <= $1 ORDER BY id";
    let portal = transaction.bind(text, &[&100]).await?;
    let mut rows = 0;
    for expected in [40, 40, 20] {
        let fetched = transaction.query_portal(&portal, 40).await?.len();
        assert_eq!(fetched, expected);
        rows += fetched as u64;
    }
    done(text, rows);
    transaction.commit().await?;
    done("COMMIT", 0);
    // A transaction that is rolled back.
    let transaction = client.transaction().await?;
    done("START TRANSACTION", 0);
    let text = "INSERT INTO items (id) VALUES ($1)";
    done(text, transaction.execute(text, &[&2000]).await?);
    transaction.rollback().await?;
    done("ROLLBACK", 0);
    // COPY, both ways.
    let text = "COPY items (id, name) FROM STDIN";
    let mut sink = Box::pin(client.copy_in(text).await?);
    for key in 3000..3200 {
        sink.send(Bytes::from(format!("{key}\tcopied\n"))).await?;
    }
    done(text, sink.as_mut().finish().await?);
    let text = "COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT";
    let rows = client.copy_out(text).await?;
    done(text, rows.count().await as u64);
    Ok(())
}

async fn errors_and_messages(
    client: &Client,
    other: &Client,
    messages: &mut mpsc::UnboundedReceiver<AsyncMessage>,
) -> Done<()> {
    run(client, "SELECT 1 / $1", &[&0]).await;
    run(
        client,
        "INSERT INTO items (id, name, note) VALUES ($1, '', '')",
        &[&1],
    )
    .await;
    run(client, "SELEC", &[]).await;
    // Notices, alone and between rows.
    run(client, "DO $$ BEGIN RAISE NOTICE 'to be read'; END $$", &[]).await;
    run(client, "SELECT loud(id) FROM items WHERE id <= $1", &[&5]).await;
    for _ in 0..6 {
        assert!(matches!(
            messages.recv().await,
            Some(AsyncMessage::Notice(_))
        ));
    }
    // LISTEN and NOTIFY, while the connection is idle.
    run(client, "LISTEN news", &[]).await;
    run(other, "NOTIFY news, 'read all about it'", &[]).await;
    assert!(matches!(
        messages.recv().await,
        Some(AsyncMessage::Notification(_))
    ));
    // A cancelled query.
    let token = client.cancel_token();
    let cancel = async {
        sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await
    };
    let (_, result) = future::join(run(client, "SELECT pg_sleep(30)", &[]), cancel).await;
    Ok(result?)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Done<()> {
    let (mut client, mut messages) = connect().await?;
    let (other, _receive) = connect().await?;
    parameters_and_batches(&client).await?;
    transactions_and_copy(&mut client).await?;
    errors_and_messages(&client, &other, &mut messages).await?;
    // A large row.
    assert_eq!(
        run(&client, "SELECT repeat('x', $1)", &[&5_000_000]).await,
        1
    );
    // Several statements in one Query.
    let texts = [
        "SELECT 'a', 1",
        "SELECT id FROM items WHERE id < 4",
        "UPDATE items SET note = 'x' WHERE id <= 7",
    ];
    let mut texts_left = texts.iter();
    for message in client.simple_query(&texts.join("; ;")).await? {
        if let SimpleQueryMessage::CommandComplete(rows) = message {
            done(texts_left.next().ok_or("one too many")?, rows);
        }
    }
    Ok(())
}
