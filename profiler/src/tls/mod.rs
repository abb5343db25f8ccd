//! Where plaintext passes through TLS libraries: `functions` finds them in an ELF file, `returns` the instructions by
//! which one returns; both are pure. [`Libraries`] is the shell: it looks at what targets map, and has probes attached
//! to each file once. What passes there is read elsewhere.
//!
//! OpenSSL's functions are looked for by name in every mapped file, whatever it is called: also in executables, and in
//! libraries that a package brings along.

pub(crate) mod functions;
mod libraries;
pub(crate) mod returns;

pub(crate) use libraries::Libraries;
