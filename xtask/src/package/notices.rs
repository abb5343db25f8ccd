//! The licences and notices of every crate that is linked in, as their licences want it: the texts that the crates
//! themselves carry, each once, with whom it is of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell::{self, cargo, output};

/// Packages whose code is in the program: the second one as the BPF object.
const ROOTS: [&str; 2] = ["profiler", "profiler-ebpf"];
/// How files begin that hold a licence or a notice.
const STEMS: [&str; 6] = [
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

/// A crate of others, with the texts it carries.
struct Crate {
    /// Name and version.
    title: String,
    /// Its licence expression.
    licence: String,
    texts: Vec<String>,
}

/// Writes the file.
pub(super) fn write(file: &Path) -> Result<()> {
    let preface = fs::read_to_string(shell::root().join("THIRD-PARTY-NOTICES.md"))?;
    let host = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
    ];
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata =
        output(cargo(&host).arg(target)).context("cargo does not say what is linked in")?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut crates = Vec::new();
    for id in linked(&metadata) {
        crates.extend(read(&metadata, id)?);
    }
    ensure!(!crates.is_empty(), "nothing is linked in, which cannot be");
    fs::write(file, render(&preface, &crates))?;
    println!("{} crates of others are linked in", crates.len());
    Ok(())
}

/// The ids of what is linked in: normal dependencies, and theirs, without procedural macros.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let packages = list(&metadata["packages"]);
    let is_macro = |id: &str| {
        let package = packages.iter().find(|package| package["id"] == id);
        let targets = package.map_or(&[][..], |package| list(&package["targets"]));
        targets
            .iter()
            .any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    };
    let roots = packages.iter().filter(|package| {
        let name = package["name"].as_str().unwrap_or_default();
        package["source"].is_null() && ROOTS.contains(&name)
    });
    let mut waiting: Vec<&str> = roots.filter_map(|package| package["id"].as_str()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if is_macro(id) || !found.insert(id) {
            continue;
        }
        let nodes = list(&metadata["resolve"]["nodes"]);
        let node = nodes.iter().find(|node| node["id"] == id);
        let dependencies = node.map_or(&[][..], |node| list(&node["deps"]));
        waiting.extend(
            dependencies
                .iter()
                .filter(|dependency| {
                    list(&dependency["dep_kinds"])
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                })
                .filter_map(|dependency| dependency["pkg"].as_str()),
        );
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Of a crate of others; `None` of ours.
fn read(metadata: &Value, id: &str) -> Result<Option<Crate>> {
    let package = list(&metadata["packages"])
        .iter()
        .find(|package| package["id"] == id);
    let package = package.with_context(|| format!("cargo does not describe {id}"))?;
    if package["source"].is_null() {
        return Ok(None);
    }
    let word = |key: &str| package[key].as_str().unwrap_or_default();
    let manifest = Path::new(word("manifest_path"));
    let folder = manifest.parent().context("a manifest lies in no folder")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        if path.is_file() && STEMS.iter().any(|stem| name.starts_with(stem)) {
            texts.push(String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    texts.sort();
    Ok(Some(Crate {
        title: format!("{} {}", word("name"), word("version")),
        licence: word("license").to_owned(),
        texts,
    }))
}

/// First who is linked in and under what, then each text once.
fn render(preface: &str, crates: &[Crate]) -> String {
    let mut sorted: Vec<&Crate> = crates.iter().collect();
    sorted.sort_by_key(|found| &found.title);
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut file = format!("{}\n\n# Crates\n\n", preface.trim_end());
    for found in &sorted {
        for text in &found.texts {
            owners.entry(text.trim()).or_default().push(&found.title);
        }
    }
    file.extend(sorted.iter().map(|found| {
        let silent = if found.texts.is_empty() {
            " (the crate carries no text of it)"
        } else {
            ""
        };
        format!("- {}: {}{silent}\n", found.title, found.licence)
    }));
    let texts = owners.iter();
    file.extend(texts.map(|(text, of)| format!("\n# Of {}\n\n{text}\n", of.join(", "))));
    file
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Crate, linked, render};

    fn named(title: &str, texts: &[&str]) -> Crate {
        Crate {
            title: title.to_owned(),
            licence: "MIT".to_owned(),
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    /// A licence that many crates share is there once, with all their names; who carries none is named too.
    #[test]
    fn each_text_is_there_once_with_all_whose_it_is() {
        let crates = [
            named("b 1", &["Do as you like.\n"]),
            named("a 2", &["Do as you like."]),
            named("c 3", &[]),
        ];
        let file = render("Notices.", &crates);
        assert_eq!(file.matches("Do as you like.").count(), 1);
        assert!(file.contains("# Of a 2, b 1\n"));
        assert!(file.contains("- c 3: MIT (the crate carries no text of it)\n"));
    }

    /// What only builds, tests or derives is not in the program.
    #[test]
    fn only_what_is_linked_in_counts() {
        let package = |id: &str, kind: &str, source: Option<&str>| json!({"id": id, "name": id, "source": source, "targets": [{"kind": [kind]}]});
        let dependency =
            |id: &str, kind: Option<&str>| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("profiler", "lib", None), package("linked", "lib", Some("r")),
                package("below", "lib", Some("r")), package("derives", "proc-macro", Some("r")),
                package("tests", "lib", Some("r")),
            ],
            "resolve": {"nodes": [
                {"id": "profiler", "deps": [
                    dependency("linked", None), dependency("derives", None), dependency("tests", Some("dev")),
                ]},
                {"id": "linked", "deps": [dependency("below", None)]},
                {"id": "derives", "deps": [dependency("tests", None)]},
            ]},
        });
        let found: Vec<&str> = linked(&metadata).into_iter().collect();
        assert_eq!(found, ["below", "linked", "profiler"]);
    }
}
