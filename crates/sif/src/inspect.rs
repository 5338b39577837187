//! The metadata of an image, as `inspect-metadata.json` (ours and Apptainer's) and `labels.json` hold it. Pure, bounded.

use crate::gojson;
use crate::image_config::BASE_FOLDER;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Most bytes of a metadata object that are read.
pub const MAX_BYTES: u64 = 8 << 20;
/// Name of the SIF object that holds it.
pub const OBJECT_NAME: &str = "inspect-metadata.json";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {what} has {len} bytes, at most {MAX_BYTES} are read")]
    TooLarge { what: &'static str, len: usize },
    #[error("the {what} is no valid JSON: {reason}")]
    Json { what: &'static str, reason: String },
}

/// `data.attributes`; texts without trailing newlines, empty where the image has none. The order is that of the reference's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Metadata {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: BTreeMap<String, App>,
    /// Path → text.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub runscript: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub test: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub helpfile: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub deffile: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub startscript: String,
}

/// A SCIF app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct App {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub runscript: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub startscript: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub test: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub helpfile: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Metadata {
    /// From the object `inspect-metadata.json`.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Document {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            attributes: Metadata,
        }
        parse::<Document>("inspect metadata", json).map(|document| document.data.attributes)
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub labels: bool,
    pub deffile: bool,
    pub runscript: bool,
    pub startscript: bool,
    pub test: bool,
    pub environment: bool,
    pub helpfile: bool,
    pub list_apps: bool,
    /// Everything; no app then.
    pub all: bool,
    /// Of this app instead of the image.
    pub app: Option<String>,
}

impl Metadata {
    /// What is asked for of it, and nothing else.
    pub fn select(&self, wanted: &Wanted) -> Self {
        let others = wanted.deffile
            || wanted.runscript
            || wanted.startscript
            || wanted.test
            || wanted.environment
            || wanted.helpfile
            || wanted.list_apps;
        let wants = |one: bool| one || wanted.all;
        let text = |one: bool, text: &String| if wants(one) { text.clone() } else { String::new() };
        let map = |one: bool, map: &BTreeMap<String, String>| if wants(one) { map.clone() } else { BTreeMap::new() };
        let labels = wanted.labels || !others;
        let of_app =
            labels || wanted.runscript || wanted.startscript || wanted.test || wanted.environment || wanted.helpfile;
        let apps = if wants(wanted.list_apps) { self.apps.clone() } else { BTreeMap::new() };
        // The definition is the image's in any case.
        let image = Self { deffile: text(wanted.deffile, &self.deffile), apps, ..Self::default() };
        match wanted.app.as_ref().filter(|_| !wanted.all).map(|name| (name, self.apps.get(name))) {
            Some((name, Some(app))) => {
                let app = App {
                    environment: map(wanted.environment, &app.environment),
                    labels: map(labels, &app.labels),
                    runscript: text(wanted.runscript, &app.runscript),
                    startscript: text(wanted.startscript, &app.startscript),
                    test: text(wanted.test, &app.test),
                    helpfile: text(wanted.helpfile, &app.helpfile),
                };
                let mut image = image;
                if of_app && !wanted.list_apps {
                    image.apps.insert(name.clone(), app);
                }
                image
            }
            Some((_, None)) => image,
            None => Self {
                environment: map(wanted.environment, &self.environment),
                labels: map(labels, &self.labels),
                runscript: text(wanted.runscript, &self.runscript),
                startscript: text(wanted.startscript, &self.startscript),
                test: text(wanted.test, &self.test),
                helpfile: text(wanted.helpfile, &self.helpfile),
                ..image
            },
        }
    }

    /// `inspect --json`: as the reference prints it.
    pub fn json(&self) -> Result<Vec<u8>, Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            data: Data<'a>,
            r#type: &'a str,
        }
        #[derive(Serialize)]
        struct Data<'a> {
            attributes: &'a Metadata,
        }
        let document = Document { data: Data { attributes: self }, r#type: "container" };
        let failed = |error: serde_json::Error| Error::Json { what: "inspect metadata", reason: error.to_string() };
        gojson::tabs(&document).map_err(failed)
    }

    /// `inspect`: sections without headings, as the reference prints them. Of [`Self::select`]'s result.
    pub fn text(&self, wanted: &Wanted) -> String {
        let mut out = String::new();
        // Writing into a String never fails.
        if wanted.list_apps {
            for name in self.apps.keys() {
                let _ = writeln!(out, "{name}");
            }
        }
        let none = App::default();
        let app = wanted.app.as_ref().and_then(|name| self.apps.get(name)).unwrap_or(&none);
        let empty = String::new();
        let texts = [
            (&self.deffile, &empty),
            (&self.runscript, &app.runscript),
            (&self.startscript, &app.startscript),
            (&self.test, &app.test),
            (&self.helpfile, &app.helpfile),
        ];
        for (image, app) in texts {
            let text = if image.is_empty() { app } else { image };
            if !text.is_empty() {
                let _ = writeln!(out, "{text}");
            }
        }
        let or = |image: &'_ BTreeMap<String, String>, app: &BTreeMap<String, String>| {
            if image.is_empty() { app.clone() } else { image.clone() }
        };
        for (path, text) in or(&self.environment, &app.environment) {
            let _ = writeln!(out, "=== {path} ===\n{text}\n");
        }
        for (name, value) in or(&self.labels, &app.labels) {
            let _ = writeln!(out, "{name}: {value}");
        }
        out
    }

    /// Of an image without the object: from its files.
    pub fn gather<E>(files: &dyn Files<Error = E>) -> Result<Self, E> {
        let folder = BASE_FOLDER.trim_end_matches('/');
        let of_image = part(files, folder, true)?;
        let mut metadata = Self {
            environment: of_image.environment,
            labels: of_image.labels,
            runscript: of_image.runscript,
            startscript: of_image.startscript,
            test: of_image.test,
            helpfile: of_image.helpfile,
            deffile: text(files, &format!("{folder}/Singularity"))?,
            apps: BTreeMap::new(),
        };
        for name in files.names("scif/apps")?.into_iter().take(MAX_APPS) {
            let app = format!("scif/apps/{name}/scif");
            if !files.names(&app)?.is_empty() {
                metadata.apps.insert(name, part(files, &app, false)?);
            }
        }
        Ok(metadata)
    }
}

/// Apps that are looked at.
const MAX_APPS: usize = 1024;

/// A root file system, as far as its metadata need it.
pub trait Files {
    type Error;
    /// The contents of a file, at most [`MAX_BYTES`]; None if it is no file.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Self::Error>;
    /// The names in a directory; none if it is no directory.
    fn names(&self, path: &str) -> Result<Vec<String>, Self::Error>;
}

/// Without newlines at its end.
fn text<E>(files: &dyn Files<Error = E>, path: &str) -> Result<String, E> {
    let bytes = files.read(path)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// What an image and an app have in common.
fn part<E>(files: &dyn Files<Error = E>, folder: &str, image: bool) -> Result<App, E> {
    let mut names = files.names(&format!("{folder}/env"))?;
    names.sort();
    let counts = |name: &String| {
        (image && name.starts_with("10-docker") && name.ends_with(".sh"))
            || (name.starts_with('9') && name.ends_with("-environment.sh"))
    };
    let mut environment = BTreeMap::new();
    for name in names.into_iter().filter(counts) {
        let path = format!("{folder}/env/{name}");
        if files.read(&path)?.is_some() {
            environment.insert(format!("/{path}"), text(files, &path)?);
        }
    }
    let labels = files.read(&format!("{folder}/labels.json"))?;
    Ok(App {
        environment,
        // The reference warns; labels that are none are none.
        labels: labels.and_then(|json| parse_labels(&json).ok()).unwrap_or_default(),
        runscript: text(files, &format!("{folder}/runscript"))?,
        startscript: text(files, &format!("{folder}/startscript"))?,
        test: text(files, &format!("{folder}/test"))?,
        helpfile: text(files, &format!("{folder}/runscript.help"))?,
    })
}

/// From `/.singularity.d/labels.json`.
pub fn parse_labels(json: &[u8]) -> Result<BTreeMap<String, String>, Error> {
    parse("labels file", json)
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, Error> {
    if json.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { what, len: json.len() });
    }
    serde_json::from_slice(json).map_err(|error| Error::Json { what, reason: error.to_string() })
}
