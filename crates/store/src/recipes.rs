//! Recipe key → artifact: what was built already need not be built again.
//!
//! The key is the digest of all that decides an image's bytes, so the record never changes: it is made by `link`, and the first one
//! stays. Only when its artifact is gone is it replaced.

use crate::durable::{self, Link};
use crate::{Error, Store};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use std::fs::File;

const FORMAT: u32 = 1;
const LIMIT: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipeRecord {
    pub format: u32,
    /// The key.
    pub recipe: Digest,
    /// The artifact's image digest.
    pub digest: Digest,
    /// The artifact's bytes.
    pub size: u64,
}

impl RecipeRecord {
    pub fn new(recipe: Digest, digest: Digest, size: u64) -> Self {
        Self { format: FORMAT, recipe, digest, size }
    }
}

impl Store {
    /// What this recipe built, if the artifact is still there, in its length. A caller that then writes a ref must open the artifact again after it.
    pub fn recipe(&self, key: &Digest) -> Result<Option<RecipeRecord>, Error> {
        let path = self.layout().recipe(key);
        let record: Option<RecipeRecord> = durable::read_json(&path, LIMIT, FORMAT)?;
        match record {
            Some(record) if record.recipe != *key => {
                Err(Error::Damaged { path, reason: format!("it names the recipe {}", record.recipe) })
            }
            Some(record) => {
                let artifact = self.open_artifact(&record.digest)?;
                let is_whole = |file: &File| {
                    let metadata = file.metadata().map_err(Error::io("stat", &path))?;
                    Ok(metadata.len() == record.size)
                };
                // One that was cut off is built again; publishing finds the damage and puts the new one in its place.
                let whole = artifact.as_ref().map(is_whole).transpose()?;
                Ok((whole == Some(true)).then_some(record))
            }
            None => Ok(None),
        }
    }

    /// Records what a recipe built; returns the record that holds, which is an earlier one if its artifact is there.
    pub fn record_recipe(&self, record: RecipeRecord) -> Result<RecipeRecord, Error> {
        let path = self.layout().recipe(&record.recipe);
        // The layout gives every recipe a directory of its own hash prefix.
        let dir = path.parent().unwrap_or(self.root());
        durable::make_dirs(dir)?;
        let temp = durable::json_temp(dir, &record, 0o644)?;
        if temp.link(&path)? == Link::Made {
            return Ok(record);
        }
        match self.recipe(&record.recipe) {
            Ok(Some(existing)) => Ok(existing),
            // The artifact is gone, or the record damaged: ours takes its place.
            Ok(None) | Err(Error::Damaged { .. }) => temp.rename(&path).map(|()| record),
            Err(error) => Err(error),
        }
    }
}
