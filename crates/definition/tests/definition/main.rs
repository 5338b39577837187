//! Definition files as text → stages, or the error as it is shown.

mod arguments;
mod errors;
mod rendering;
mod robustness;
mod stages;

use siforge_definition::{Arguments, Definition, Error};

fn given(arguments: &[&str]) -> Arguments {
    Arguments::read(None, arguments.iter().copied()).expect("arguments").0
}

fn parse(text: &str, arguments: &[&str]) -> Result<Definition, Error> {
    Definition::parse("x.def", text.as_bytes(), &given(arguments))
}
