//! What would give more names: which file has none for some of its functions, what is missing, and where it is looked
//! for.

use super::debug_files::{DIRECTORIES, build_id_path};

/// Files that have a sentence of their own.
const FILES_MAX: usize = 5;

/// A file with functions that are named by address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unnamed {
    /// As its process sees it.
    pub(super) path: String,
    /// Empty where it has none.
    pub(super) build_id: Vec<u8>,
    /// The name of its debug file, where it says one.
    pub(super) debug_link: Option<String>,
    /// Whether its process has another root than we have.
    pub(super) is_elsewhere: bool,
    /// How many distinct places have no name.
    pub(super) places: usize,
}

/// A sentence for each file, those with the most places first.
pub(super) fn sentences(mut files: Vec<Unnamed>) -> Vec<String> {
    files.sort_by(|one, other| {
        other
            .places
            .cmp(&one.places)
            .then_with(|| one.path.cmp(&other.path))
    });
    let others = files.len().saturating_sub(FILES_MAX);
    let mut sentences: Vec<String> = files
        .iter()
        .take(FILES_MAX)
        .map(Unnamed::sentence)
        .collect();
    if others > 0 {
        sentences.push(format!(
            "functions of {others} more files are named by address"
        ));
    }
    sentences
}

impl Unnamed {
    fn sentence(&self) -> String {
        let Self {
            path,
            build_id,
            debug_link,
            is_elsewhere,
            ..
        } = self;
        let (whose, place) = if *is_elsewhere {
            (
                " of a process with a root of its own",
                "below that root, or on this host",
            )
        } else {
            ("", "here")
        };
        let mut missing = Vec::new();
        if !build_id.is_empty() {
            missing.push(build_id_path(DIRECTORIES[0], build_id));
        }
        missing.extend(debug_link.clone());
        let missing = if missing.is_empty() {
            "it has neither a build id nor a debug link, so only a file that is not stripped names them".to_owned()
        } else {
            let missing = missing.join(" or ");
            format!(
                "there is no {missing}: its debug symbol package (-dbgsym, -debuginfo) {place} brings it"
            )
        };
        format!("some functions of {path}{whose} are named by address; {missing}")
    }
}

#[cfg(test)]
mod tests {
    use super::{FILES_MAX, Unnamed, sentences};

    fn file(path: &str, places: usize) -> Unnamed {
        Unnamed {
            path: path.to_owned(),
            build_id: vec![0xab, 0xcd, 0xef],
            debug_link: None,
            is_elsewhere: false,
            places,
        }
    }

    /// What is missing is named for each file, and where.
    #[test]
    fn what_is_missing_is_named() {
        let linked = Unnamed {
            debug_link: Some("b.debug".to_owned()),
            is_elsewhere: true,
            ..file("/bin/b", 1)
        };
        let bare = Unnamed {
            build_id: Vec::new(),
            ..file("/bin/c", 2)
        };
        let [c, a, b] = &sentences(vec![linked, file("/bin/a", 1), bare])[..] else {
            panic!("three files")
        };
        assert!(
            c.starts_with("some functions of /bin/c are") && c.contains("neither"),
            "{c}"
        );
        assert!(
            a.contains("no /usr/lib/debug/.build-id/ab/cdef.debug:"),
            "{a}"
        );
        assert!(a.ends_with("here brings it"), "{a}");
        assert!(
            b.contains("cdef.debug or b.debug") && b.contains("below that root"),
            "{b}"
        );
    }

    /// Of many files the first ones are named.
    #[test]
    fn many_files_are_counted() {
        let files = (0..FILES_MAX + 3).map(|number| file(&format!("/{number}"), number));
        let sentences = sentences(files.collect());
        assert_eq!(sentences.len(), FILES_MAX + 1);
        assert!(sentences[0].contains(" /7 "));
        assert_eq!(
            sentences[FILES_MAX],
            "functions of 3 more files are named by address"
        );
    }
}
