//! `inspect`: what an image says of itself.

use crate::cli::Inspect;
use crate::error::Error;
use siforge_sif::inspect::{self, Metadata};
use siforge_sif::{DataType, Sif};
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

const METADATA_OBJECT: &str = "inspect-metadata.json";

pub(crate) fn inspect(options: &Inspect) -> Result<(), Error> {
    let path = Path::new(&options.image);
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let sif_error = |source| Error::Sif { path: path.to_owned(), source };
    let sif = Sif::open(file).map_err(sif_error)?;
    if options.list_objects {
        print!("{}", objects(&sif));
        return Ok(());
    }
    let metadata = match sif.find(DataType::GenericJson, METADATA_OBJECT) {
        Some(descriptor) => {
            let json = sif.object(descriptor, inspect::MAX_BYTES).map_err(sif_error)?;
            Metadata::parse(&json).map_err(|source| Error::Metadata { path: path.to_owned(), source })?
        }
        None => Metadata::default(),
    };
    print!("{}", if options.json { json(options, &metadata) } else { text(options, &metadata) });
    Ok(())
}

/// Which parts are asked for; without any, the labels.
fn wants_labels(options: &Inspect) -> bool {
    let others = options.deffile
        || options.runscript
        || options.startscript
        || options.test
        || options.environment
        || options.helpfile;
    options.labels || options.all || !others
}

fn text(options: &Inspect, metadata: &Metadata) -> String {
    let mut out = String::new();
    // Writing into a String never fails.
    if wants_labels(options) {
        for (key, value) in &metadata.labels {
            let _ = writeln!(out, "{key}: {value}");
        }
    }
    let parts = [
        (options.deffile, &metadata.deffile),
        (options.runscript, &metadata.runscript),
        (options.startscript, &metadata.startscript),
        (options.test, &metadata.test),
        (options.helpfile, &metadata.helpfile),
    ];
    for (wanted, part) in parts {
        if (wanted || options.all) && !part.is_empty() {
            let _ = writeln!(out, "{}", part.trim_end_matches('\n'));
        }
    }
    if options.environment || options.all {
        for (path, script) in &metadata.environment {
            let _ = writeln!(out, "=== {path} ===\n{}\n", script.trim_end_matches('\n'));
        }
    }
    out
}

/// The shape of Apptainer's `inspect --json`.
fn json(options: &Inspect, metadata: &Metadata) -> String {
    let mut attributes = serde_json::Map::new();
    let mut add = |wanted: bool, key: &str, value: serde_json::Value| {
        // What an image lacks is left out, as the reference does.
        if (wanted || options.all) && value != "" {
            attributes.insert(key.to_owned(), value);
        }
    };
    add(wants_labels(options), "labels", serde_json::json!(metadata.labels));
    add(options.deffile, "deffile", serde_json::json!(metadata.deffile));
    add(options.runscript, "runscript", serde_json::json!(metadata.runscript));
    add(options.startscript, "startscript", serde_json::json!(metadata.startscript));
    add(options.test, "test", serde_json::json!(metadata.test));
    add(options.helpfile, "helpfile", serde_json::json!(metadata.helpfile));
    add(options.environment, "environment", serde_json::json!(metadata.environment));
    let document = serde_json::json!({ "data": { "attributes": attributes }, "type": "container" });
    format!("{document:#}\n")
}

fn objects(sif: &Sif) -> String {
    let mut out = String::from("ID   GROUP  LINK   OFFSET        SIZE          TYPE\n");
    for descriptor in sif.descriptors() {
        let _ = writeln!(
            out,
            "{:<4} {:<6} {:<6} {:<13} {:<13} {:?} {}",
            descriptor.id,
            descriptor.group & 0x0fff_ffff,
            descriptor.link,
            descriptor.offset,
            descriptor.size,
            descriptor.datatype,
            descriptor.name
        );
    }
    out
}
