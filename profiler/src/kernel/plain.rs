//! Values of maps as aya wants them.

/// Wraps records of plain words, without padding.
macro_rules! plain {
    ($($(#[$meta:meta])* $name:ident($inner:ty);)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($inner);

        // SAFETY: a transparent wrapper around plain words without padding.
        unsafe impl aya::Pod for $name {}
    )+};
}
pub(super) use plain;
