//! Definition files: an error names a place that is there, and shows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siforge_definition::{Arguments, Definition};

fuzz_target!(|bytes: &[u8]| {
    match Definition::parse("fuzz.def", bytes, &Arguments::default()) {
        Ok(definition) => assert!(!definition.stages.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
