//! A tree that was an image before, and is built anew: what stays of its `.singularity.d`. Pure.
//!
//! The reference's rule (apptainer `sources/base_environment.go` and the stages' history): the scripts that the runtime
//! owns are replaced; run script, start script, environment and labels stay; the old definition becomes
//! `bootstrap_history/Singularity<n>`.

use super::plan::{FileKind, ImageFile};
use std::collections::BTreeMap;

/// Where all of it lies.
pub const BASE_FOLDER: &str = ".singularity.d/";
/// Where SCIF apps lie.
pub const APPS_FOLDER: &str = "/scif/apps/";
/// What is shown of an app.
pub const APP_FILES: [&str; 6] =
    ["env/90-environment.sh", "labels.json", "runscript", "startscript", "test", "runscript.help"];
/// Bytes of one of its files that are kept in memory; scripts have some KiB. A longer one stays in the tree as it is.
pub const MAX_BASE_FILE: u64 = 1 << 20;
/// Bytes of all of them.
pub const MAX_BASE: u64 = 8 << 20;

/// The image's own, where it has them.
const KEPT: [&str; 4] = ["env/10-docker2singularity.sh", "env/90-environment.sh", "runscript", "startscript"];
const DEFINITION: &str = "Singularity";
const HISTORY: &str = "bootstrap_history";

/// Files of an image's `.singularity.d`, by their path below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    ///
    /// And those of `/scif/apps/NAME/scif`, by their whole path (with its slash).
    pub files: BTreeMap<String, Vec<u8>>,
    /// Unix seconds that stand for the new image's time; None: its config tells.
    pub time: Option<i64>,
    /// Whether `files` are, and lie in the tree as, what the image shall have but for the scripts that the runtime owns:
    /// a definition's sections put them there.
    pub complete: bool,
}

impl Base {
    /// Whether it was an image; else it is just a tree of files.
    pub(super) fn is_image(&self) -> bool {
        self.files.keys().any(|path| !path.starts_with('/'))
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether the tree's own file of this path is the one that counts. An image whose process a launcher works out from
    /// its scripts must not get a config that says another.
    pub(super) fn keeps(&self, path: &str) -> bool {
        let always = self.is_image() && matches!(path, "env/10-docker2singularity.sh" | super::OCI_CONFIG_NAME);
        always || (KEPT.contains(&path) && self.files.contains_key(path))
    }

    /// Names of its apps, and the files of each, by their paths below the app's `scif`.
    pub(super) fn apps(&self) -> BTreeMap<&str, BTreeMap<&str, &[u8]>> {
        let mut apps: BTreeMap<&str, BTreeMap<&str, &[u8]>> = BTreeMap::new();
        for (path, bytes) in &self.files {
            let rest = path.strip_prefix(APPS_FOLDER).and_then(|rest| rest.split_once("/scif/"));
            if let Some((app, file)) = rest {
                apps.entry(app).or_default().insert(file, bytes);
            }
        }
        apps
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        // Labels that nobody can read are no reason to refuse the image.
        let labels = self.files.get("labels.json").and_then(|json| crate::inspect::parse_labels(json).ok());
        labels.unwrap_or_default()
    }

    /// The old definition, under the first number that is free.
    pub(super) fn history(&self) -> Vec<ImageFile> {
        let Some(old) = self.files.get(DEFINITION) else {
            return Vec::new();
        };
        let prefix = format!("{HISTORY}/{DEFINITION}");
        let taken = |number: usize| self.files.contains_key(&format!("{prefix}{number}"));
        let number = (0..=self.files.len()).find(|number| !taken(*number)).unwrap_or_default();
        let file = |path: String, mode, kind| ImageFile { path: format!("{BASE_FOLDER}{path}"), mode, kind };
        vec![
            file(HISTORY.to_owned(), 0o755, FileKind::Directory),
            file(format!("{prefix}{number}"), 0o644, FileKind::Regular(old.clone())),
        ]
    }
}
