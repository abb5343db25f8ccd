//! What runs, and what is mapped where.
//!
//! [`Processes`] follows the targets' lives and answers one question: in which file, at which
//! offset, does an address of a process lie? Files are pinned by descriptor when they are first seen,
//! so that the answer stays good when the process ends or its file is deleted or replaced. Giving
//! names to places is [`symbolize`](crate::symbolize)'s business.

mod files;
mod mappings;
mod remapped;
mod replaced;
mod roots;
pub(crate) mod scan;
mod share;
mod table;
mod vdso;

pub use files::{FileId, PinnedFile};
pub use mappings::{Backing, Mapping};
pub(crate) use scan::file_of;
pub(crate) use scan::is_frozen;
pub(crate) use scan::thread_comm;
pub use scan::{
    Content, Memory, bring_in, cgroup, comm, is_alive, memory, own_id, read_words, threads,
};
pub use table::{LifeId, Place, Processes, Swept};
pub use vdso::{VDSO_NAME, vdso_image};
