//! `{{ NAME }}`: what stands for it comes from the caller, else from the stage's `%arguments` (apptainer
//! `internal/pkg/build/args`).

use crate::error::{Error, Problem, nearest};
use crate::lines::Line;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Values that a caller may give, and a stage may have defaults for.
pub const MAX_ARGUMENTS: usize = 10_000;

/// What the caller gives: `--build-arg` and `--build-arg-file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    pub values: BTreeMap<String, String>,
}

impl Arguments {
    /// Of a file's text, then of words, which count more. A line that is no `NAME=VALUE` is skipped with a warning, a
    /// word is refused: both as in the reference.
    pub fn read<'a>(
        file: Option<&str>,
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Self, Vec<String>), String> {
        let (mut values, mut warnings) = (BTreeMap::new(), Vec::new());
        for (number, line) in file.into_iter().flat_map(str::lines).zip(1..).map(|(line, number)| (number, line)) {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            match name_and_value(trimmed) {
                Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
                None => warnings.push(format!("line {number} of the build arguments is no NAME=VALUE: skipped")),
            }
        }
        for word in words {
            let (name, value) = name_and_value(word).ok_or_else(|| format!("{word:?} is no NAME=VALUE"))?;
            values.insert(name.to_owned(), value.to_owned());
        }
        match values.len() {
            count if count > MAX_ARGUMENTS => {
                Err(format!("{count} build arguments, at most {MAX_ARGUMENTS} are taken"))
            }
            _ => Ok((Self { values }, warnings)),
        }
    }
}

/// Nothing without a name.
pub(crate) fn name_and_value(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim(), value.trim())).filter(|(name, _)| !name.is_empty())
}

/// Fills in the arguments of one line; what it mentions is added to `used`.
pub(crate) fn substitute(
    file: &str,
    line: &Line,
    given: &Arguments,
    defaults: &BTreeMap<String, String>,
    used: &mut BTreeSet<String>,
) -> Result<String, Error> {
    let look = |name: &str| given.values.get(name).or_else(|| defaults.get(name));
    let (mut text, mut done) = (String::new(), 0);
    for (whole, name) in mentions(&line.text) {
        if is_comment(&line.text[done..whole.start]) {
            continue;
        }
        let Some(value) = look(name) else {
            let known = given.values.keys().chain(defaults.keys()).map(String::as_str);
            let problem = Problem::Argument { name: name.to_owned(), nearest: nearest(name, known) };
            return Err(line.error(file, whole, problem));
        };
        if value.contains('\0') {
            return Err(line.error(file, whole, Problem::ArgumentNul { name: name.to_owned() }));
        }
        text.push_str(&line.text[done..whole.start]);
        // A value may mention arguments itself, once; one that nobody knows stays as it is.
        let mut inner = 0;
        for (range, name) in mentions(value) {
            if let Some(nested) = look(name) {
                text.push_str(&value[inner..range.start]);
                text.push_str(nested);
                inner = range.end;
            }
        }
        text.push_str(&value[inner..]);
        used.insert(name.to_owned());
        done = whole.end;
    }
    text.push_str(&line.text[done..]);
    Ok(text)
}

/// Whether what stands before an argument makes it part of a comment. `#!` begins none, nor does the `#` right before it.
fn is_comment(before: &str) -> bool {
    let mut rest = before.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '#' && rest.peek().is_some_and(|next| *next != '!') {
            return true;
        }
    }
    false
}

/// Every `{{ NAME }}`: where it stands, and the name.
fn mentions(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text[from..].find("{{")?;
            match mention(&text[start..]) {
                Some((name, len)) => {
                    from = start + len;
                    return Some((start..from, name));
                }
                // `{{{ x }}` holds one from its second brace.
                None => from = start + 1,
            }
        }
    })
}

/// The name and the length of the one that `text` begins with.
fn mention(text: &str) -> Option<(&str, usize)> {
    let inner = text.strip_prefix("{{")?.trim_start();
    let len = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(len);
    let rest = rest.trim_start().strip_prefix("}}")?;
    (!name.is_empty()).then_some((name, text.len() - rest.len()))
}
