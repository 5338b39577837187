//! `%files` and `%appfiles`: what is copied.

use crate::error::{Error, Problem};
use crate::lines::Line;

/// One `%files`, or all from the same stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// An earlier stage's name; None: the host.
    pub from: Option<String>,
    pub pairs: Vec<FilePair>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePair {
    /// May hold wildcards.
    pub source: String,
    /// None: the same path.
    pub destination: Option<String>,
    /// Of the file, from 1.
    pub line: u32,
}

/// The pairs of a section's lines; None for an empty line or a comment.
pub(crate) fn pair(file: &str, line: &Line) -> Result<Option<FilePair>, Error> {
    let trimmed = line.text.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    let words = words(file, line)?;
    match <[String; 2]>::try_from(words) {
        Ok([source, destination]) => {
            let destination = Some(destination).filter(|path| !path.is_empty());
            Ok(Some(FilePair { source, destination, line: line.number }))
        }
        Err(words) => match <[String; 1]>::try_from(words) {
            Ok([source]) => Ok(Some(FilePair { source, destination: None, line: line.number })),
            Err(words) => Err(line.wrong(file, Problem::FilesWords { count: words.len() })),
        },
    }
}

/// Words, with quotes of both kinds around a part or all of them. A word that begins with # ends the line.
fn words(file: &str, line: &Line) -> Result<Vec<String>, Error> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = line.text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' | '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some((_, end)) if end == character => break,
                        Some((_, inner)) => word.push(inner),
                        None => return Err(line.error(file, at..line.text.len(), Problem::Quote)),
                    }
                }
            }
            '#' if word.is_none() => break,
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}
