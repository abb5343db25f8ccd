//! How long the sentences of the documentation are.

use std::fs;

use anyhow::{Result, ensure};

use crate::shell::root;

/// Most words of a sentence: longer ones are read twice.
const WORDS_MAX: usize = 30;
/// Documents beside those in `docs/`.
const OTHERS: [&str; 1] = ["SECURITY.md"];

/// An error that names each sentence that is too long.
pub(super) fn check() -> Result<()> {
    let root = root();
    let docs = fs::read_dir(root.join("docs"))?.flatten();
    let docs = docs.map(|entry| entry.path());
    let mut files: Vec<_> = docs.chain(OTHERS.map(|name| root.join(name))).collect();
    files.retain(|file| file.extension().is_some_and(|suffix| suffix == "md"));
    files.sort();
    let (mut sentences, mut long) = (0, Vec::new());
    for file in &files {
        for sentence in all(&fs::read_to_string(file)?) {
            sentences += 1;
            let words = sentence.split_whitespace().count();
            if words > WORDS_MAX {
                long.push(format!("{}: {words} words: {sentence}", file.display()));
            }
        }
    }
    println!("{} documents, {sentences} sentences", files.len());
    ensure!(long.is_empty(), "{}", long.join("\n"));
    Ok(())
}

/// The sentences of a text in Markdown; what is code is left out.
fn all(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut in_code = false;
    for line in text.lines() {
        let line = line.trim();
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        if is_fence || in_code {
            continue;
        }
        let begins = line.is_empty() || line.starts_with(['-', '#', '|']);
        if begins {
            paragraphs.push(String::new());
        }
        for cell in line.split('|') {
            if let Some(paragraph) = paragraphs.last_mut() {
                paragraph.push_str(cell.trim());
                paragraph.push(' ');
            }
            if line.starts_with(['|', '#']) {
                paragraphs.push(String::new());
            }
        }
    }
    let ends = |text: &str| text.ends_with(['.', '!', '?', ':', ';']);
    let mut sentences = Vec::new();
    for paragraph in paragraphs {
        let mut sentence = String::new();
        for word in paragraph.split_whitespace() {
            sentence.push_str(word);
            sentence.push(' ');
            if ends(word) {
                sentences.push(std::mem::take(&mut sentence));
            }
        }
        sentences.push(sentence);
    }
    sentences.retain(|sentence| sentence.chars().any(char::is_alphanumeric));
    sentences
}

#[cfg(test)]
mod tests {
    use super::all;

    /// A sentence ends with its mark, its paragraph, its item or its cell; code has none.
    #[test]
    fn sentences_are_told_apart() {
        let text = "# Title\nOne two\nthree. Four\n\n- five\n- six\n\n```console\n$ no\n```\n\n| a b | c |\n|---|---|\n";
        assert_eq!(
            all(text),
            [
                "# Title ",
                "One two three. ",
                "Four ",
                "- five ",
                "- six ",
                "a b ",
                "c "
            ]
        );
    }
}
