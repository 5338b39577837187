//! A file's text as lines that know their numbers.

use crate::error::{Error, Problem};

/// Bytes of a definition file.
pub const MAX_BYTES: u64 = 16 << 20;
/// Bytes of one of its lines.
pub const MAX_LINE: usize = 1 << 20;

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) text: String,
}

impl Line {
    /// `problem` at the bytes `range` of the line.
    pub(crate) fn error(&self, file: &str, range: std::ops::Range<usize>, problem: Problem) -> Error {
        let characters = |bytes: usize| self.text.get(..bytes).map_or(0, |part| part.chars().count());
        let (start, end) = (characters(range.start), characters(range.end));
        Error {
            file: file.to_owned(),
            line: self.number,
            column: start as u32 + 1,
            width: end.saturating_sub(start) as u32,
            text: self.text.clone(),
            problem,
        }
    }

    /// `problem` with the whole line but the white space around it.
    pub(crate) fn wrong(&self, file: &str, problem: Problem) -> Error {
        let start = self.text.len() - self.text.trim_start().len();
        self.error(file, start..self.text.trim_end().len().max(start), problem)
    }
}

/// A problem of the file as a whole.
pub(crate) fn whole(file: &str, problem: Problem) -> Error {
    Error { file: file.to_owned(), line: 0, column: 0, width: 0, text: String::new(), problem }
}

/// The lines of `bytes`. A carriage return before a line's end belongs to the end, as in the reference.
pub(crate) fn lines(file: &str, bytes: &[u8]) -> Result<Vec<Line>, Error> {
    let len = bytes.len() as u64;
    if len > MAX_BYTES {
        return Err(whole(file, Problem::TooLarge { bytes: len, max: MAX_BYTES }));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut raw: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What ends with a line end has no line behind it.
    raw.pop_if(|last| last.is_empty());
    let numbered = raw.into_iter().zip(1..);
    numbered.map(|(bytes, number)| line(file, bytes, number)).collect()
}

fn line(file: &str, bytes: &[u8], number: u32) -> Result<Line, Error> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let (shown, rest) = bytes.split_at(bytes.len().min(MAX_LINE));
    let line = Line { number, text: String::from_utf8_lossy(shown).into_owned() };
    let at = |position: usize| String::from_utf8_lossy(&shown[..position]).len();
    if let Some(nul) = shown.iter().position(|byte| *byte == 0) {
        return Err(line.error(file, at(nul)..at(nul) + 1, Problem::Binary));
    }
    if !rest.is_empty() {
        return Err(line.error(file, 0..0, Problem::LongLine { bytes: bytes.len(), max: MAX_LINE }));
    }
    match std::str::from_utf8(shown) {
        Ok(_) => Ok(line),
        Err(error) => {
            let start = at(error.valid_up_to());
            let width = char::REPLACEMENT_CHARACTER.len_utf8();
            Err(line.error(file, start..start + width, Problem::Encoding))
        }
    }
}
