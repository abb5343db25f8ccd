//! What Go programs say of their own code: every one has a table of functions, files and lines for its runtime, also
//! where it was stripped.
//!
//! Read are the tables of Go 1.18 and later. They come from files of strangers: each offset is checked, each loop bounded.

#[doc(hidden)]
pub(crate) mod fuzzing;
mod image;
mod inlined;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    image::{Image, is_go},
    inlined::Place,
    table::{Function, Table},
};
