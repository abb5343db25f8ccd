//! What the first users run: a Django project under gunicorn, that asks Postgres through psycopg.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    bench::{Bench, Folded, Target, bench},
    packages::venv,
    postgres::Postgres,
    python::{line_of, without_frames},
};

/// What is installed.
pub(crate) const PACKAGES: [&str; 3] = [
    "django==5.2.19",
    "gunicorn==27.0.1",
    "psycopg[binary]==3.3.9",
];
/// What can be imported of them.
pub(crate) const MODULES: &str = "django, gunicorn, psycopg, psycopg_binary";

const SETTINGS: &str = r"
import os

SECRET_KEY = 'of a test'
ALLOWED_HOSTS = ['localhost']
ROOT_URLCONF = 'shop.urls'
INSTALLED_APPS = ['shop']
DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
DATABASES = {'default': {
    'ENGINE': 'django.db.backends.postgresql',
    'HOST': os.environ['PGHOST'],
    'USER': os.environ['PGUSER'],
    'NAME': os.environ['PGDATABASE'],
    'CONN_MAX_AGE': 60,
}}
";

const MODELS: &str = r"
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=40)
    price = models.IntegerField()
";

/// What a view does at which line is known from this text: see [`line_of`].
const VIEWS: &str = r"
from django.db import connection
from django.http import HttpResponse

from shop.models import Item

def report(request):
    wait()  # waits
    return HttpResponse(str(total()))  # totals

def total():
    items = Item.objects.filter(price__gte=10).order_by('name')
    return sum(item.price for item in items)  # queries

def wait():
    with connection.cursor() as cursor:
        cursor.execute('select pg_sleep(0.02)')  # sleeps
";

const URLS: &str = r"
from django.urls import path

from shop.views import report

urlpatterns = [path('report', report)]
";

const WSGI: &str = r"
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
";

/// Makes the tables and fills them.
const SEED: &str = r"
import django

django.setup()

from django.core.management import call_command
from shop.models import Item

call_command('migrate', run_syncdb=True, verbosity=0)
Item.objects.bulk_create(Item(name=f'item {n}', price=n) for n in range(200))
";

/// Clients at once: more than one worker serves.
const CLIENTS: usize = 3;

/// A server or an answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The project on disk, with its database.
struct Project {
    venv: PathBuf,
    folder: PathBuf,
    postgres: Postgres,
}

impl Project {
    fn make(bench: &Bench, venv: PathBuf) -> Self {
        let package = bench.path("shop");
        fs::create_dir(&package).expect("the folder can be made");
        for (name, text) in [
            ("__init__.py", ""),
            ("settings.py", SETTINGS),
            ("models.py", MODELS),
            ("views.py", VIEWS),
            ("urls.py", URLS),
            ("wsgi.py", WSGI),
            ("seed.py", SEED),
        ] {
            fs::write(package.join(name), text).expect("the project can be written");
        }
        let project = Self {
            venv,
            folder: bench.path(""),
            postgres: Postgres::start().expect("Postgres starts"),
        };
        let mut seed = project.program("python");
        let seeded = seed.args(["-m", "shop.seed"]).status();
        assert!(seeded.expect("Python runs").success());
        project
    }

    /// A program of the venv that finds the project and its database.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.venv.join("bin").join(name));
        command
            .current_dir(&self.folder)
            .env("PYTHONPATH", &self.folder)
            .env("DJANGO_SETTINGS_MODULE", "shop.settings");
        // The environment of Postgres's own clients tells where the server is, and as whom to go there.
        let client = self.postgres.client("psql").expect("psql is there");
        let settings = client
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?)));
        command.envs(settings);
        command
    }

    /// gunicorn serves the project on a port of its choice.
    fn serve(&self, workers: &[&str]) -> Server {
        let log = self.folder.join(workers.join("-"));
        let mut gunicorn = self.program("gunicorn");
        gunicorn
            .args(["--bind", "127.0.0.1:0", "--error-logfile"])
            .arg(&log)
            .args(["--no-control-socket", "--worker-class"])
            .args(workers)
            .arg("shop.wsgi")
            .process_group(0);
        let mut server = Server {
            master: Target::spawn(&mut gunicorn),
            port: 0,
        };
        let step = Duration::from_millis(50);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("Listening at: http://127.0.0.1:") {
                let port = rest.split(' ').next().and_then(|port| port.parse().ok());
                server.port = port.expect("a port");
                return server;
            }
            sleep(step);
        }
        panic!("gunicorn does not listen: {:?}", fs::read_to_string(&log));
    }
}

/// gunicorn: the master and its workers, which are a process group and end as one.
struct Server {
    master: Target,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.master.0), Signal::KILL);
    }
}

/// Clients that ask for the report, one time after the other, until dropped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(port: u16) -> Self {
        ask(port).expect("the first report comes");
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) && ask(port).is_some() {
                    served += 1;
                }
                served
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    /// Ends it; gives the reports of each client.
    fn end(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.drain(..);
        clients
            .map(|client| client.join().expect("a client does not panic"))
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One request; `None` unless the report came, which is the sum of 10 to 199.
fn ask(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = b"GET /report HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.ends_with("\r\n\r\n19855").then_some(())
}

/// Weight of the stacks that have these pieces, in this order, caller first.
fn weight(folded: &Folded, pieces: &[&str]) -> u64 {
    let has = |stack: &str| {
        let mut rest = stack;
        pieces.iter().all(|piece| {
            let after = rest.split_once(piece).map(|(_, after)| after);
            rest = after.unwrap_or_default();
            after.is_some()
        })
    };
    let stacks = folded.stacks.iter().filter(|(stack, _)| has(stack));
    stacks.map(|(_, weight)| weight).sum()
}

#[track_caller]
fn assert_has(folded: &Folded, pieces: &[&str]) {
    let weight = weight(folded, pieces);
    assert!(weight > 0, "no stack with {pieces:?} in:\n{}", folded.text);
}

/// A frame of the views, by the comment of its line.
fn view(function: &str, comment: &str) -> String {
    let line = line_of(VIEWS, comment);
    format!(";shop.views.{function} (views.py:{line})_[p]")
}

/// The first frames of Django, which gunicorn calls.
const HANDLER: &str = ";django.core.handlers.wsgi.WSGIHandler.__call__ (wsgi.py:";
/// What Django's ORM ends in, and a raw query too.
const CURSOR: &str = ";django.db.backends.utils.CursorWrapper.execute (utils.py:";
/// psycopg's part in Python.
const DRIVER: &str = ";psycopg.cursor.Cursor.execute (cursor.py:";

/// Views stand on gunicorn and Django, the ORM on the views, psycopg on the ORM: each with its line.
fn check_on_cpu(kind: &str, worker: &str, folded: &Folded) {
    let total = view("total", "queries");
    let orm = "django.db.models.query.QuerySet.__iter__ (query.py:";
    let compiler = ";django.db.models.sql.compiler.SQLCompiler.execute_sql (compiler.py:";
    assert_has(folded, &[worker, HANDLER, &view("report", "waits")]);
    assert_has(folded, &[HANDLER, &view("report", "totals"), orm]);
    assert_has(folded, &[&total, orm, compiler, CURSOR, DRIVER]);
    assert_has(folded, &[&view("wait", "sleeps"), CURSOR, DRIVER]);
    assert!(
        !folded.text.contains("<python code"),
        "{kind}: all are read"
    );
    let (without, samples) = (without_frames(folded), folded.total());
    println!("{kind}: {samples} samples, {without} without Python frames");
    assert!(without * 100 <= samples, "{kind}: {}", folded.text);
}

/// The view waits below psycopg for Postgres.
///
/// psycopg's C part polls the connection's one socket, which is called by its server's path.
fn check_off_cpu(kind: &str, folded: &Folded) {
    let sleeps = view("wait", "sleeps");
    let polls = [&sleeps, CURSOR, DRIVER, "poll", ";[blocked: poll, unix /"];
    let (polling, blocked) = (
        weight(folded, &polls),
        weight(folded, &[&sleeps, ";[blocked"]),
    );
    println!("{kind}: {blocked} us blocked, {polling} of it in poll of the server's socket");
    assert!(polling > 0, "{kind}: nobody polls in:\n{}", folded.text);
    assert!(
        polling * 10 >= blocked * 9,
        "{kind}: {polling} of {blocked} us in:\n{}",
        folded.text
    );
    let server = [HANDLER, &sleeps, DRIVER, "/.s.PGSQL.5432]"];
    assert_has(folded, &server);
}

/// Views, ORM and driver are named with their lines in the workers of a gunicorn under load, by processes and
/// by threads, and their waiting for Postgres stands on them.
#[test]
fn django_is_seen_from_the_worker_to_the_driver() {
    let Some(bench) = bench() else { return };
    let Some(venv) = venv(&PACKAGES, MODULES) else {
        println!("skipped: Django could not be installed");
        return;
    };
    let project = Project::make(&bench, venv);
    for (kind, workers, worker) in [
        (
            "sync",
            &["sync", "--workers", "2"][..],
            ";gunicorn.workers.sync.SyncWorker.handle_request (sync.py:",
        ),
        (
            "gthread",
            &["gthread", "--workers", "2", "--threads", "2"],
            ";gunicorn.workers.gthread.ThreadWorker.handle_request (gthread.py:",
        ),
    ] {
        let server = project.serve(workers);
        let load = Load::start(server.port);
        let record = |arguments: &[&str]| {
            let pid = server.master.pid();
            let common = ["-p", &pid, "--descendants", "--lines", "line"];
            bench.folded(&[&common, arguments].concat())
        };
        let on_cpu = record(&["-d", "6s", "-F", "499"]);
        let off_cpu = record(&["-d", "4s", "--off-cpu"]);
        let served = load.end();
        println!("{kind}: each client got {served:?} reports");
        assert!(served.iter().all(|&reports| reports > 0), "{kind}");
        check_on_cpu(kind, worker, &on_cpu);
        check_off_cpu(kind, &off_cpu);
    }
}
