//! Reads Rust sources as far as rules about them need: text without comments and literals, functions, test code, modules.
//!
//! A full parser would be a dependency of 100,000 lines for questions that a scan answers: all sources here are
//! formatted by rustfmt, and none makes functions by macros.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A source file. In `code`, comments and the insides of string and character literals are blanks; lines are the same.
#[derive(Debug)]
pub struct Source {
    pub path: PathBuf,
    pub code: String,
}

/// A function: its name, the line it begins on (from 1) and how many lines it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        Self { path: path.to_path_buf(), code: blank(&text) }
    }

    /// Lines with code on them.
    pub fn code_lines(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// The code without the items behind `#[cfg(test)]`.
    pub fn code_without_tests(&self) -> String {
        let mut code = self.code.clone();
        for range in self.test_items() {
            let kept: String = code[range.clone()].chars().filter(|c| *c == '\n').collect();
            let blanks = " ".repeat(range.len() - kept.len());
            code.replace_range(range, &(blanks + &kept));
        }
        code
    }

    /// Lines (from 1) of the code outside tests on which `pattern` stands as a whole word or path.
    pub fn lines_with(&self, pattern: &str) -> Vec<usize> {
        let code = self.code_without_tests();
        let lines = code.lines().enumerate().filter(|(_, line)| has_word(line, pattern));
        lines.map(|(index, _)| index + 1).collect()
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = find_word(&self.code[from..], "fn").map(|at| from + at) {
            from = at + 2;
            let name: String =
                self.code[from..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(body) = body_after(&self.code, from) else {
                continue;
            };
            if !name.is_empty() {
                let (line, last) = (line_of(&self.code, at), line_of(&self.code, body.end));
                found.push(Function { name, line, lines: last - line + 1 });
            }
        }
        found
    }

    /// Files that the `mod` lines of this file name, with those that exist.
    pub fn modules(&self) -> Vec<PathBuf> {
        let stem = self.path.file_stem().unwrap_or_default();
        let parent = self.path.parent().unwrap_or(Path::new("."));
        let is_root = ["lib", "main", "mod"].iter().any(|root| stem == *root)
            || parent.ends_with("bin")
            || parent.ends_with("tests");
        let dir = if is_root { parent.to_path_buf() } else { parent.join(stem) };
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut found = Vec::new();
        for (code, original) in self.code.lines().zip(text.lines()) {
            let code = code.trim();
            if let Some(path) = original.trim().strip_prefix("#[path = \"").and_then(|rest| rest.split('"').next()) {
                found.push(parent.join(path));
            }
            let Some(name) = module_name(code) else {
                continue;
            };
            found.extend(
                [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")]
                    .into_iter()
                    .filter(|path| path.is_file()),
            );
        }
        found
    }

    fn test_items(&self) -> Vec<Range<usize>> {
        let mut items = Vec::new();
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]").map(|at| from + at) {
            let after = at + "#[cfg(test)]".len();
            let end = body_after(&self.code, after)
                .map_or_else(|| self.code[after..].find(';').map_or(after, |semi| after + semi), |body| body.end);
            items.push(at..end);
            from = end;
        }
        items
    }
}

/// `x` of `mod x;` and `pub(crate) mod x;`.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    (before.is_empty() || before.ends_with(' ')).then_some(name.trim())
}

/// From the next `{` to its `}`; none when a `;` of the same level comes first.
fn body_after(code: &str, from: usize) -> Option<Range<usize>> {
    let (mut nesting, mut start) = (0_i32, None);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => nesting += 1,
            b')' | b']' => nesting -= 1,
            b';' if nesting == 0 && start.is_none() => return None,
            b'{' => {
                start = start.or(Some((at, nesting)));
                nesting += 1;
            }
            b'}' => {
                nesting -= 1;
                if let Some((start, outer)) = start
                    && nesting == outer
                {
                    return Some(start..at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

fn has_word(line: &str, pattern: &str) -> bool {
    find_word(line, pattern).is_some()
}

fn find_word(text: &str, pattern: &str) -> Option<usize> {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(pattern)
        .find(|(at, _)| !inside(text[..*at].chars().next_back()) && !inside(text[at + pattern.len()..].chars().next()))
        .map(|(at, _)| at)
}

/// Blanks out comments and the insides of literals. Every character becomes one blank of one byte, but newlines stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end == at {
            out.push(if chars[at].is_ascii() { chars[at] } else { '?' });
            at += 1;
            continue;
        }
        // A literal leaves its quotes, so that code with one does not look empty.
        let comment = chars[at] == '/';
        out.extend(chars[at..end].iter().map(|c| match c {
            '\n' => '\n',
            _ if comment => ' ',
            '"' => '"',
            _ => ' ',
        }));
        at = end;
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself when none does.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let starts = |from: usize, text: &str| text.chars().enumerate().all(|(i, c)| chars.get(from + i) == Some(&c));
    let seek = |from: usize, text: &str| {
        (from..chars.len()).find(|i| starts(*i, text)).map_or(chars.len(), |i| i + text.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if starts(at, "//") => seek(at, "\n") - usize::from(seek(at, "\n") < chars.len()),
        '/' if starts(at, "/*") => seek(at + 2, "*/"),
        '"' => quoted_end(chars, at + 1, '"'),
        'r' if !in_word => raw_end(chars, at + 1).unwrap_or(at),
        'b' | 'c' if !in_word && chars.get(at + 1) == Some(&'r') => raw_end(chars, at + 2).unwrap_or(at),
        // 'x' and '\n' are literals, 'a in `&'a str` is a lifetime.
        '\'' if starts(at + 1, "\\") || chars.get(at + 2) == Some(&'\'') => quoted_end(chars, at + 1, '\''),
        _ => at,
    }
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of `#…"…"#…` that begins at `at`; none when it is no raw string.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let closes = |from: usize| {
        chars[from] == '"' && chars[from + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    let close = (at + hashes + 1..chars.len()).find(|from| closes(*from));
    Some(close.map_or(chars.len(), |from| from + 1 + hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "a.rs".into(), code: blank(text) }
    }

    #[test]
    fn comments_and_literals_are_blank() {
        let check = |text: &str, word: &str, there: bool| {
            assert_eq!(has_word(&source(text).code, word), there, "{text}");
        };
        check("let a = 1; // unsafe", "unsafe", false);
        check("/* unsafe\n */ let a = 1;", "unsafe", false);
        check(r#"let a = "unsafe \" unsafe"; b"#, "unsafe", false);
        check(r##"let a = r#"unsafe " unsafe"#; b"##, "unsafe", false);
        check(r#"let a = '"'; unsafe { }"#, "unsafe", true);
        check("fn a<'a>(x: &'a str) { unsafe {} }", "unsafe", true);
        check("let not_unsafe = 1;", "unsafe", false);
        check("std::env::var_os(name)", "env::var_os", true);
        check("std::env::var_os(name)", "env::var", false);
    }

    #[test]
    fn functions_have_lengths() {
        let text = "fn a() {\n    let x = [0; 2];\n}\n\ntrait T {\n    fn b(&self) -> [u8; 4];\n    fn c(&self) -> u8 {\n        1\n    }\n}\n";
        let found: Vec<_> = source(text).functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".into(), 1, 3), ("c".into(), 7, 3)]);
    }

    #[test]
    fn test_code_is_left_out() {
        let text = "fn a() { one(); }\n#[cfg(test)]\nmod tests {\n    fn b() { two(); }\n}\n#[cfg(test)]\nmod more;\nfn c() { three(); }\n";
        let code = source(text).code_without_tests();
        assert!(
            has_word(&code, "one") && has_word(&code, "three") && !has_word(&code, "two") && !has_word(&code, "more")
        );
        assert_eq!(source(text).lines_with("three"), [8]);
    }
}
