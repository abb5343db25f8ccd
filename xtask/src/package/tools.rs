//! The makers of packages, at pinned versions, built outside of the target directory.

use anyhow::{Result, ensure};

use crate::shell::{self, command, output};

const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

/// Builds those that are not here, or are another version.
pub(super) fn install() -> Result<()> {
    for (tool, version) in TOOLS {
        if !is_here(tool, version) {
            println!("{tool} {version} is not here: building it, which takes some minutes, once");
            let install = ["install", tool, "--version", version, "--locked", "--force"];
            shell::run(
                command("cargo", &install)
                    .env_remove("CARGO_TARGET_DIR")
                    .current_dir("/"),
            )?;
            ensure!(
                is_here(tool, version),
                "{tool} {version} was installed, but PATH has another"
            );
        }
    }
    Ok(())
}

fn is_here(tool: &str, version: &str) -> bool {
    let said = output(&mut command(tool, &["--version"])).unwrap_or_default();
    said.split_whitespace().any(|word| word == version)
}
