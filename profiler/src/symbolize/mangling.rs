//! Names as compilers mangle them, and as programmers wrote them.
//!
//! A C function may be called `v` or `Pc`, which is also how C++ mangles the types `void` and `char*`: a
//! name is demangled only where it begins as a mangled function does.

use std::borrow::Cow;

/// What functions' names begin with: C++ (Itanium ABI §5.1.2) and Rust's older form, the C++ functions
/// that run constructors, and Rust's newer form (RFC 2603).
const CPP: [&str; 2] = ["_Z", "_GLOBAL_"];
const RUST: &str = "_R";

/// The name as it was written, the same where it is not mangled.
pub(super) fn demangle(name: &str) -> Cow<'_, str> {
    let is_cpp = CPP.iter().any(|prefix| name.starts_with(prefix));
    if !is_cpp && !name.starts_with(RUST) {
        return Cow::Borrowed(name);
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return Cow::Owned(format!("{rust:#}"));
    }
    let cpp = is_cpp.then(|| cpp_demangle::Symbol::new(name).ok()?.demangle().ok());
    cpp.flatten().map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::demangle;

    /// Functions in C keep their names, whatever else these mean.
    #[test]
    fn names_in_c_are_kept() {
        for name in [
            "v", "a", "Pc", "i", "St", "main", "ZN1aE", "_Zero", "_Read", "_R", "__Z1fv",
        ] {
            assert_eq!(demangle(name), name);
        }
    }

    /// The manglings of C++ and both of Rust are read, without Rust's hash.
    #[test]
    fn mangled_names_are_read() {
        for (mangled, name) in [
            ("_Z3fooiPc", "foo(int, char*)"),
            ("_ZN3Foo3barEv.cold", "Foo::bar() [clone .cold]"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
        ] {
            assert_eq!(demangle(mangled), name, "{mangled}");
        }
    }
}
