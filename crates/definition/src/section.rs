//! What sections hold.

use crate::files::FilePair;

/// A section that is a script or a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// What follows the section's name, without a comment: `-c /bin/bash`.
    pub options: String,
    /// Every line with its end.
    pub text: String,
    /// The number in the file of each line of `text`.
    pub lines: Vec<u32>,
    /// The number of the section's own line.
    pub line: u32,
}

impl Script {
    /// The line of the file that the script's `line`th (from 1) came from.
    pub fn file_line(&self, line: u32) -> Option<u32> {
        self.lines.get(line.checked_sub(1)? as usize).copied()
    }
}

/// A SCIF app (sci-f.github.io).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App {
    pub name: String,
    pub install: Option<Script>,
    pub files: Vec<FilePair>,
    pub environment: Option<Script>,
    pub run: Option<Script>,
    pub start: Option<Script>,
    pub test: Option<Script>,
    pub help: Option<Script>,
    /// Of two with the same name the last counts.
    pub labels: Vec<(String, String)>,
}
