//! What is wrong with a definition file, and where.
//!
//! ```text
//! x.def:3:1: no such keyword "bootsrap"; did you mean "bootstrap"?
//!   3 | Bootsrap: docker
//!     | ^^^^^^^^
//! ```

use std::fmt;

/// Something wrong at one place of a definition file.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Characters that are wrong; 0: just the place.
    pub width: u32,
    /// The line's text.
    pub text: String,
    pub problem: Problem,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("it has {bytes} bytes, and a definition file at most {max}: is this the file that you mean?")]
    TooLarge { bytes: u64, max: u64 },
    #[error("the line has {bytes} bytes, and a line at most {max}")]
    LongLine { bytes: usize, max: usize },
    #[error(
        "a NUL byte: this is no definition file (give a SIF the ending .sif, or an archive its oci-archive: or docker-archive:)"
    )]
    Binary,
    #[error("these bytes are no UTF-8: save the file as UTF-8")]
    Encoding,
    #[error("the file is empty: it needs at least a Bootstrap: line")]
    Empty,
    #[error("a stage begins with Bootstrap: and its header; these lines stand before the first")]
    NoBootstrap,
    #[error("expected a header line, KEYWORD: VALUE, or a section, %NAME")]
    NoValue,
    #[error("no such keyword {name:?}{}", suggestion(nearest))]
    Keyword { name: String, nearest: Option<String> },
    #[error("no such section {name:?}{}; a line of a script cannot begin with %", suggestion(nearest))]
    Section { name: String, nearest: Option<String> },
    #[error("expected the app's name: %{section} NAME")]
    AppName { section: String },
    #[error("an app's name is made of letters, digits, and . _ + -, not {name:?}")]
    BadAppName { name: String },
    #[error("expected %files, or %files from STAGE")]
    FilesFrom,
    #[error("no earlier stage is called {name:?}{}", suggestion(nearest))]
    NoStage { name: String, nearest: Option<String> },
    #[error("a quote that is not closed")]
    Quote,
    #[error("expected SOURCE or SOURCE DESTINATION, found {count} words: quote a path that has spaces")]
    FilesWords { count: usize },
    #[error("{name} has no value: give --build-arg {name}=VALUE, or a default in %arguments{}", suggestion(nearest))]
    Argument { name: String, nearest: Option<String> },
    #[error("the value of {name} holds a NUL byte")]
    ArgumentNul { name: String },
    #[error("-c needs the shell to run: %{section} -c SHELL [ARGUMENTS]")]
    NoShell { section: String },
    #[error("more than {max} {what}")]
    TooMany { what: &'static str, max: usize },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, width, text, problem } = self;
        if *line == 0 {
            return write!(f, "{file}: {problem}");
        }
        let gutter = line.to_string();
        let (shown, before) = shorten(text, *column as usize - 1);
        let room = shown.chars().count().saturating_sub(before).max(1);
        let carets = "^".repeat((*width as usize).clamp(1, room));
        write!(f, "{file}:{line}:{column}: {problem}\n  {gutter} | {shown}")?;
        write!(f, "\n  {} | {}{carets}", " ".repeat(gutter.len()), " ".repeat(before))
    }
}

/// Characters of a line that are shown.
const SHOWN: usize = 120;

/// The part of `text` around its character `at`, and where in it that one stands. Tabs and what a terminal would obey
/// become spaces, so that the caret stands right.
fn shorten(text: &str, at: usize) -> (String, usize) {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let skip = if at > SHOWN * 2 / 3 { at - SHOWN / 3 } else { 0 };
    let (start, mut before) = if skip > 0 { ("…", at - skip + 1) } else { ("", at) };
    let mut shown: String = start.chars().chain(text.chars().skip(skip).take(SHOWN).map(visible)).collect();
    if text.chars().skip(skip).nth(SHOWN).is_some() {
        shown.push('…');
    }
    before = before.min(shown.chars().count());
    (shown.trim_end().to_owned(), before)
}

impl std::error::Error for Error {}

/// The one of `names` that was probably meant.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // A word of rubbish has no neighbour, and the distance takes time by the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let far = (name.chars().count() / 3).clamp(1, 3);
    let distances = names.into_iter().map(|known| (strsim::osa_distance(name, known), known));
    distances.filter(|(distance, _)| *distance <= far).min().map(|(_, known)| known.to_owned())
}
