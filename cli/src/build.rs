//! `build`: what it is given decides what is done.

use crate::cli::{Build, Global};
use crate::config::Config;
use crate::error::Error;
use crate::{definition, pull, sandbox, source};
use siforge_reference::Reference;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Returns the exit code.
pub(crate) fn build(global: &Global, config: &Config, options: &Build) -> Result<i32, Error> {
    if let Some((option, instead)) = options.refused.given() {
        return Err(Error::Refused { option, instead });
    }
    if options.sandbox.fix_perms && !options.sandbox.sandbox {
        return Err(Error::FixPermissions);
    }
    let reference = source::parse(config, &options.source)?;
    let definition = match &reference {
        Reference::Path(path) => is_definition(path)?,
        _ => false,
    };
    if !definition {
        definition::refuse_sections(&options.definition)?;
    }
    match &reference {
        _ if options.sandbox.sandbox => sandbox::build(global, config, options, &reference, definition),
        Reference::Path(path) if definition => definition::build(global, config, options, path),
        _ => {
            pull::convert(global, config, &options.registry, &options.format, &reference, &options.output)?;
            Ok(0)
        }
    }
}

/// Bytes by which a file is told from others: a SIF's magic lies in them, and an archive's.
const HEAD: usize = 512;

/// A file is a definition unless it begins as a SIF, an archive or something compressed; what has the ending .def is one in
/// any case, so that its parser says what is wrong with it.
fn is_definition(path: &Path) -> Result<bool, Error> {
    if path.is_dir() {
        return Ok(false);
    }
    if path.extension().is_some_and(|ending| ending == "def") {
        return Ok(true);
    }
    let mut head = Vec::new();
    let wrong = |source| Error::Read { path: path.to_owned(), source };
    File::open(path).map_err(wrong)?.take(HEAD as u64).read_to_end(&mut head).map_err(wrong)?;
    Ok(is_text(&head))
}

/// Text has no control characters but white space.
fn is_text(head: &[u8]) -> bool {
    !head.is_empty() && head.iter().all(|byte| *byte >= 0x20 || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_from_images() {
        let check = |head: &[u8], expect| assert_eq!(is_text(head), expect, "{head:?}");
        check(b"Bootstrap: docker\r\nFrom: x\n", true);
        check("# ümlaut\n".as_bytes(), true);
        check(b"", false);
        check(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0", false);
        check(b"\x1f\x8b\x08", false);
        check(b"hsqs\x01\0", false);
    }
}
