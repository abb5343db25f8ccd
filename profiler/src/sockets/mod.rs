//! Sockets as the kernel lists them (`man 7 sock_diag`), in the network namespace of a process, and whose they are.
//!
//! What a list means is for others: `tcp` makes a table of connections of it, `wait` names what a thread waits for.

mod namespaces;
pub(crate) mod netlink;
mod owners;
pub(crate) mod tcp;
pub(crate) mod unix;

pub(crate) use self::{
    namespaces::{of as namespaces_of, within},
    owners::{everybody, of as owners_of},
};
