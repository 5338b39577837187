//! Why a definition file was not built.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{operation} {}: {source}", path.display())]
    Path { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("read {}: more than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(transparent)]
    Launch(#[from] siforge_launch::Error),
    #[error(transparent)]
    Plan(#[from] siforge_launch::plan::PlanError),
    #[error(transparent)]
    Observe(#[from] siforge_sif::observe::Error),
    #[error(transparent)]
    Config(#[from] siforge_sif::image_config::Error),
    /// A header cannot be carried out.
    #[error("{file}:{line}: {problem}")]
    Header { file: String, line: u32, problem: String },
    /// A section's script failed.
    #[error("{file}:{line}: %{section} {}", ended(*code))]
    Script { file: String, line: u32, section: String, code: i32 },
    #[error("{file}:{line}: run %{section}: {source}")]
    Start { file: String, line: u32, section: &'static str, source: io::Error },
    /// A line of %files.
    #[error("{file}:{line}: copy {source_path}: {problem}")]
    Files { file: String, line: u32, source_path: String, problem: String },
    #[error("run {program}: {source}")]
    Tool { program: String, source: io::Error },
    #[error("{program} {}", ended(*code))]
    ToolFailed { program: String, code: i32 },
}

impl Error {
    /// For `map_err`.
    pub(crate) fn at<E: Into<io::Error>>(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Path { operation, path, source: source.into() }
    }
}

fn ended(code: i32) -> String {
    match code {
        129..=192 => format!("was killed by signal {}", code - 128),
        code => format!("failed with exit code {code}: the command that failed is the last one shown above"),
    }
}
