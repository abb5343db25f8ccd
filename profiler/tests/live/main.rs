//! Live tests: load the BPF programs, record real programs that the tests build and start, and
//! compare with what is known of those programs. They want root; without it they say so and are
//! skipped, or fail where CI=true.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

mod accepted;
mod backend_types;
mod bench;
mod bombs;
mod canaries;
mod canary_secrets;
mod canary_targets;
mod daemon;
mod daemon_tables;
mod debug_files;
mod deep_python;
mod django;
mod drivers;
mod dumps;
mod filters;
mod golang;
mod hard_cases;
mod hard_stacks;
mod hostile_daemon;
mod hostile_files;
mod hostile_output;
mod hostile_python;
mod hostile_symbols;
#[path = "../../../xtask/src/interpreters.rs"]
mod interpreters;
mod libpq_pipeline;
mod lifecycle;
mod long_statements;
mod middle;
mod names;
mod off_cpu;
mod packages;
mod pgproto;
#[path = "../../../xtask/src/postgres.rs"]
mod postgres;
mod preemption;
mod probed;
mod python;
mod python_tools;
mod queries;
mod raw;
mod refusals;
mod replaced;
mod replicas;
mod secrets_sql;
mod service;
mod shares;
mod sql_names;
mod stacks;
mod stopped;
mod syscalls;
mod tcp;
mod tcp_filters;
mod tls;
mod traces;
mod waits;
mod witness;
