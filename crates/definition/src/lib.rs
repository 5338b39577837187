//! Definition files (apptainer.org/docs, "Definition Files"; apptainer `pkg/build/types/parser`): text → stages. Pure.
//!
//! ```text
//! Bootstrap: docker            header: keyword, colon, value; a backslash at the end continues the value
//! From: debian:12              # comments
//! Stage: build
//!
//! %arguments                   NAME=VALUE lines: what {{ NAME }} means where --build-arg says nothing
//! %post -c /bin/bash           a section: from a line whose first word begins with % to the next such line
//!     make VERSION={{ version }}
//! %appinstall foo              a section of the SCIF app foo
//!
//! Bootstrap: docker            a line that begins with `bootstrap:` begins the next stage
//! From: debian:12-slim
//! %files from build            what a stage takes of an earlier one
//!     /usr/local/bin/tool
//! ```
//!
//! [`Definition::parse`] gives the stages; [`render`] what they put into an image: scripts, environment, apps, labels.
//! Every part knows the line that it came from, so that an error in it, or in a script while it runs, can name it.
//! A section that stands twice is continued, as the reference does; so is `%files` from the same stage.

mod arguments;
mod error;
mod files;
mod header;
mod lines;
mod parse;
pub mod render;
mod section;

pub use arguments::{Arguments, MAX_ARGUMENTS};
pub use error::{Error, Problem};
pub use files::{FilePair, Files};
pub use header::{Field, Header, Keyword};
pub use lines::{MAX_BYTES, MAX_LINE};
pub use parse::{MAX_SECTIONS, MAX_STAGES};
pub use section::{App, Script};

/// A definition file as it is built: its arguments are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// At least one; the last is the image.
    pub stages: Vec<Stage>,
    /// The whole file, arguments filled in: what the image keeps of it.
    pub text: String,
    /// What was taken to mean something else than it may have been meant to, each with its line.
    pub warnings: Vec<String>,
    /// Names given by the caller that no stage mentions.
    pub unused_arguments: Vec<String>,
}

/// One root file system to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Empty only where the file has sections alone, as `--update` takes them.
    pub header: Header,
    /// Run on the host, before anything else.
    pub pre: Option<Script>,
    /// Run on the host, before `%files` are copied.
    pub setup: Option<Script>,
    /// In the order of their first lines.
    pub files: Vec<Files>,
    /// Run in the container.
    pub post: Option<Script>,
    pub environment: Option<Script>,
    pub runscript: Option<Script>,
    pub startscript: Option<Script>,
    pub test: Option<Script>,
    pub help: Option<Script>,
    /// Of two with the same name the last counts.
    pub labels: Vec<(String, String)>,
    /// In the order of their first sections.
    pub apps: Vec<App>,
}

impl Stage {
    /// What `Stage:` calls it.
    pub fn name(&self) -> Option<&str> {
        self.header.get(Keyword::Stage)
    }
}

impl Definition {
    /// Parses `bytes` of the file `name` (for messages).
    pub fn parse(name: &str, bytes: &[u8], arguments: &Arguments) -> Result<Self, Error> {
        parse::parse(name, bytes, arguments)
    }

    /// The number of the stage that `name` means, if there is one.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name() == Some(name))
    }
}
