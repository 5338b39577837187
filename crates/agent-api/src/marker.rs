//! The file that tells the runtime whose root a container is to have, written by the agent and read by the runtime.
//!
//! ```json
//! {"format":1,"namespace":"lab","name":"cow","digest":"sha256:…"}
//! ```
//!
//! Any image can bring such a file. It says what is wanted and proves nothing: the agent asks the image's access rules.

use serde::{Deserialize, Serialize};

/// Its name in the root directory.
pub const MARKER: &str = ".siforge-image";

/// Most bytes of it that are read.
pub const MARKER_LIMIT: u64 = 4096;

const FORMAT: u32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Of this file.
    pub format: u32,
    /// The image's namespace.
    pub namespace: String,
    /// The image's name.
    pub name: String,
    /// The image digest, `sha256:<hex>`.
    pub digest: String,
}

impl Marker {
    /// The marker of an image.
    pub fn new(namespace: &str, name: &str, digest: &str) -> Self {
        Marker { format: FORMAT, namespace: namespace.to_owned(), name: name.to_owned(), digest: digest.to_owned() }
    }

    /// Reads one. The parts are not checked: they go into a reference, which is.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let marker: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        match marker.format {
            FORMAT => Ok(marker),
            other => Err(format!("it has format {other}, this program reads {FORMAT}")),
        }
    }

    /// The image as the agent takes it: `sif://lab/cow@sha256:…`.
    pub fn reference(&self) -> String {
        format!("sif://{}/{}@{}", self.namespace, self.name, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let marker = Marker::new("lab", "cow", "sha256:00");
        let json = serde_json::to_vec(&marker).unwrap();
        assert_eq!(Marker::parse(&json), Ok(marker.clone()));
        assert_eq!(marker.reference(), "sif://lab/cow@sha256:00");
        for (bad, reason) in [
            ("", "EOF"),
            ("{}", "missing field"),
            (r#"{"format":1,"namespace":"a","name":"b"}"#, "missing field `digest`"),
            (r#"{"format":2,"namespace":"a","name":"b","digest":"c"}"#, "format 2"),
        ] {
            let error = Marker::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
