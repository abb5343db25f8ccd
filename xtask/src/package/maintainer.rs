//! Whose package it is: of whoever makes it, in the variables in which Debian's own tools ask for that.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::shell;

/// What stands in the sources, where nobody's address belongs: an address that cannot exist.
const NOBODY: &str = "The profiler authors <maintainers@profiler.example>";

/// Name and address by DEBFULLNAME and DEBEMAIL; a placeholder without them, which is said.
pub(super) fn find() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = variable("DEBFULLNAME").zip(variable("DEBEMAIL"));
    named.map_or_else(
        || {
            println!(
                "The maintainer's address is a placeholder: set DEBFULLNAME and DEBEMAIL for a package that others get."
            );
            NOBODY.to_owned()
        },
        |(name, address)| format!("{name} <{address}>"),
    )
}

/// The change log, signed by the maintainer.
pub(super) fn sign_changelog(maintainer: &str, file: &Path) -> Result<()> {
    let source = shell::root().join("profiler/packaging/changelog");
    let text = fs::read_to_string(&source)?;
    let signed = signed(&text, maintainer)
        .with_context(|| format!("{} is signed by somebody", source.display()))?;
    Ok(fs::write(file, signed)?)
}

/// `None` where the placeholder is not there to be replaced.
fn signed(changelog: &str, maintainer: &str) -> Option<String> {
    let signature = format!("\n -- {NOBODY}  ");
    changelog
        .contains(&signature)
        .then(|| changelog.replace(&signature, &format!("\n -- {maintainer}  ")))
}

#[cfg(test)]
mod tests {
    use super::{NOBODY, signed};

    /// The log is signed by whoever makes the package, with its date as it was; a log without the placeholder is not taken.
    #[test]
    fn the_log_is_signed_by_the_maintainer() {
        let log = format!("profiler (1)\n\n  * New.\n\n -- {NOBODY}  Sat, 21 Nov 2026\n");
        let signed_log = signed(&log, "Ada <ada@lovelace.org>").unwrap();
        assert!(signed_log.ends_with("\n -- Ada <ada@lovelace.org>  Sat, 21 Nov 2026\n"));
        assert_eq!(signed(&signed_log, "Bob <bob@lovelace.org>"), None);
    }
}
