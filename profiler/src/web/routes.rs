//! What is answered to what.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use askama::Template;
use axum::{
    Router,
    extract::{Query as Parameters, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    Sources,
    connections::{Admitted, Connections, HEALTH},
    guard::{self, Guard},
    history::{Reader, Sum},
    metrics,
    overview::{Now, Page, rendered},
    own::Own,
    query::{Asked, Query},
    svg, tables,
};
use crate::{
    daemon::health,
    error::Error,
    output::{self, Format, Options},
    postgres::shown,
    printable::lines,
    syscalls, tcp,
};

/// Longest time for reading windows, for one answer.
const READING: Duration = Duration::from_secs(15);
/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(45);
/// Most bytes of a path with what stands behind the question mark.
const ASKED_MAX: usize = 2048;
/// Below everything else on the machine.
const NICENESS: i32 = 10;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// What the answers are made of.
struct Site {
    sources: Sources,
    reader: Reader,
    /// One at a time reads windows.
    turn: Semaphore,
}

type Shared = State<Arc<Site>>;
/// What stands behind the question mark, if it can be read.
type Typed = Result<Parameters<Query>, QueryRejection>;

/// Answers until told to stop.
pub(super) fn serve(
    socket: super::listen::Socket,
    guard: Guard,
    sources: Sources,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    // Of this thread and those that it starts; without it the page is only less modest.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(2)
        .build()?;
    runtime.block_on(async {
        let connections = Connections::of(socket)?;
        let serving = connections.serve(router(guard, sources));
        tokio::select! {
            result = serving => result,
            // Told, or who could tell is gone.
            _ = stopped => Ok(()),
        }
    })?;
    // Whoever reads windows at this moment is not waited for.
    runtime.shutdown_background();
    Ok(())
}

fn router(guard: Guard, sources: Sources) -> Router {
    let site = Site {
        reader: Reader::new(sources.state.clone()),
        sources,
        turn: Semaphore::new(1),
    };
    Router::new()
        .route("/", get(overview))
        .route("/flamegraph.svg", get(flamegraph))
        .route("/queries", get(statements))
        .route("/tcp", get(connections))
        .route("/syscalls", get(calls))
        .route("/metrics", get(metrics))
        .route(HEALTH, get(healthz))
        .route(
            "/style.css",
            get(async || asset("text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/page.js",
            get(async || asset("text/javascript; charset=utf-8", SCRIPT)),
        )
        .with_state(Arc::new(site))
        .layer(middleware::from_fn(limit))
        .layer(middleware::from_fn_with_state(guard, guard::watch))
}

/// Bounds what is asked and how long it takes. What is wrong with a request is never said in its
/// own words.
async fn limit(request: axum::extract::Request, next: middleware::Next) -> Response {
    let asked = request.uri().path_and_query();
    if asked.is_some_and(|asked| asked.as_str().len() > ASKED_MAX) {
        return words(StatusCode::URI_TOO_LONG, "too long");
    }
    if request.extensions().get() == Some(&Admitted(false)) {
        return busy();
    }
    match timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => busy(),
    }
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn healthz(State(site): Shared) -> Response {
    let (snapshot, exports) = (
        site.sources.status.snapshot(),
        site.sources.exports.health(),
    );
    let trouble = health::trouble(&snapshot, &exports, Instant::now());
    if trouble.is_empty() {
        return "ok\n".into_response();
    }
    let lines = format!("{}\n", trouble.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

async fn metrics(State(site): Shared, headers: HeaderMap) -> Response {
    let snapshot = site.sources.status.snapshot();
    let exports = site.sources.exports.health();
    let queries = site.sources.status.queries().shown();
    let Ok(text) = metrics::render(&snapshot, &exports, &queries, &Own::read()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let wants_text = accept.is_some_and(|accept| {
        accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
    });
    let (kind, text) = if wants_text {
        (metrics::TEXT, metrics::to_text(&text))
    } else {
        (metrics::OPEN_METRICS, text)
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn overview(State(site): Shared, query: Typed) -> Response {
    let (query, asked) = match meant(query) {
        Ok(meant) => meant,
        Err(why) => return words(StatusCode::BAD_REQUEST, why),
    };
    let (reading, wanted) = (Arc::clone(&site), asked.clone());
    let sum = in_turn(&site, move || {
        reading.reader.sum(&wanted, Instant::now() + READING)
    });
    let (sum, mut trouble) = match sum.await {
        Some(Ok(sum)) => (sum, Vec::new()),
        // The daemon's own state is worth showing without the store, too.
        Some(Err(error)) => (Sum::default(), vec![error.to_string()]),
        None => return busy(),
    };
    let snapshot = site.sources.status.snapshot();
    let exports = site.sources.exports.health();
    trouble.extend(health::trouble(&snapshot, &exports, Instant::now()));
    let now = Now {
        snapshot: &snapshot,
        exports: &exports,
        own: Own::read(),
        trouble,
    };
    match Page::of(&query, &asked, &sum, now).render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn flamegraph(State(site): Shared, query: Typed) -> Response {
    let asked = match meant(query) {
        Ok((_, asked)) => asked,
        Err(why) => return words(StatusCode::BAD_REQUEST, why),
    };
    let reading = Arc::clone(&site);
    let drawn = in_turn(&site, move || draw(&reading.reader, &asked));
    match drawn.await {
        Some(Ok(Some(bytes))) => svg::response(&String::from_utf8_lossy(&bytes)),
        Some(Ok(None)) => words(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many windows for one picture: choose a shorter time, or use `profiler report --since`",
        ),
        Some(Err(error)) => words(status_of(&error), &error.to_string()),
        None => words(StatusCode::SERVICE_UNAVAILABLE, "busy, try again"),
    }
}

async fn statements(State(site): Shared, query: Typed) -> Response {
    let (query, asked) = match meant(query) {
        Ok(meant) => meant,
        Err(why) => return words(StatusCode::BAD_REQUEST, why),
    };
    let (state, span) = (site.sources.state.clone(), asked.span);
    let read = read(&site, "queries", move |go_on| {
        shown::of_span(&state, span, go_on)
    });
    match read.await {
        Ok(shown) => page(&tables::statements(&query, span, &shown)),
        Err(response) => response,
    }
}

async fn connections(State(site): Shared, query: Typed) -> Response {
    let (query, asked) = match meant(query) {
        Ok(meant) => meant,
        Err(why) => return words(StatusCode::BAD_REQUEST, why),
    };
    let (state, span, who) = (site.sources.state.clone(), asked.span, asked.who());
    let read = read(&site, "tcp", move |go_on| {
        tcp::shown::of_span(&state, span, &who, go_on)
    });
    match read.await {
        Ok(shown) => page(&tables::connections(&query, span, &shown)),
        Err(response) => response,
    }
}

async fn calls(State(site): Shared, query: Typed) -> Response {
    let (query, asked) = match meant(query) {
        Ok(meant) => meant,
        Err(why) => return words(StatusCode::BAD_REQUEST, why),
    };
    let (state, span, who) = (site.sources.state.clone(), asked.span, asked.who());
    let read = read(&site, "syscalls", move |go_on| {
        syscalls::shown::of_span(&state, span, &who, go_on)
    });
    match read.await {
        Ok(shown) => page(&tables::calls(&query, span, &shown)),
        Err(response) => response,
    }
}

/// Reads windows of a table, as long as that may take; what could not be read is the answer.
async fn read<T: Default + Send + 'static>(
    site: &Arc<Site>,
    verb: &str,
    of_span: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<Option<T>, Error> + Send + 'static,
) -> Result<T, Response> {
    let read = in_turn(site, move || {
        let deadline = Instant::now() + READING;
        of_span(&mut || Instant::now() < deadline)
    });
    match read.await {
        Some(Ok(Some(shown))) => Ok(shown),
        // Nothing kept of that time is nothing to show, not a failure.
        Some(Err(Error::NoWindows { .. })) => Ok(T::default()),
        Some(Err(error)) => Err(words(status_of(&error), &error.to_string())),
        Some(Ok(None)) => {
            let what = "too many windows for one table: choose a shorter time, or use";
            let text = format!("{what} `profiler {verb} --since`");
            Err(words(StatusCode::SERVICE_UNAVAILABLE, &text))
        }
        None => Err(busy()),
    }
}

/// What was typed and what it means, or why it means nothing.
fn meant(query: Typed) -> Result<(Query, Asked), &'static str> {
    let Parameters(query) =
        query.map_err(|_| "what stands behind the question mark cannot be read")?;
    let asked = query.resolve(Timestamp::now())?;
    Ok((query, asked))
}

fn page(page: &impl Template) -> Response {
    match rendered(page) {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn draw(reader: &Reader, asked: &Asked) -> Result<Option<Vec<u8>>, Error> {
    let Some(profile) = reader.profile(asked, Instant::now() + READING)? else {
        return Ok(None);
    };
    Ok(Some(output::render(
        &profile,
        Format::Svg,
        &Options::default(),
    )?))
}

fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::NoWindows { .. } | Error::Output(output::OutputError::NoSamples) => {
            StatusCode::NOT_FOUND
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Does work that takes long, on a thread of its own, one at a time; `None` where the turn does not come.
async fn in_turn<T: Send + 'static>(
    site: &Arc<Site>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let _turn = timeout(READING, site.turn.acquire()).await.ok()?.ok()?;
    spawn_blocking(work).await.ok()
}

fn busy() -> Response {
    words(StatusCode::SERVICE_UNAVAILABLE, "busy, try again")
}

/// Shown in the place of a picture, too.
fn words(status: StatusCode, text: &str) -> Response {
    let mut response = (status, format!("{}\n", lines(text))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, svg::words());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
