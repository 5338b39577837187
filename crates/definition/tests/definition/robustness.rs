//! Nothing that can be in a file makes the parser panic, and an error always names a place that is there.

use crate::given;
use proptest::prelude::*;
use siforge_definition::{Definition, render};

/// Text made of what the parser looks for.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("Bootstrap: docker\n".to_owned()),
        Just("Stage: s\n".to_owned()),
        Just("%files from s\n".to_owned()),
        Just("%appfiles x\n".to_owned()),
        Just("%arguments\na=1\n".to_owned()),
        Just("%post -c sh\n".to_owned()),
        Just("{{ a }}".to_owned()),
        Just("{{".to_owned()),
        Just("\\\n".to_owned()),
        Just("#!".to_owned()),
        "[%\\w\"':= \t\r\n#ä{}]{0,12}",
    ];
    prop_oneof![
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn any_bytes(bytes in texts()) {
        match Definition::parse("x.def", &bytes, &given(&["b=\"x\ny\""])) {
            Ok(definition) => {
                prop_assert!(!definition.stages.is_empty());
                for stage in &definition.stages {
                    let scripts = [&stage.post, &stage.runscript, &stage.test];
                    for script in scripts.into_iter().flatten() {
                        prop_assert_eq!(script.text.lines().count(), script.lines.len());
                        render::script(script);
                        render::command(script, "/s");
                    }
                    stage.apps.iter().for_each(|app| drop(render::app(app)));
                }
                // What an image keeps parses to the same image.
                let again = Definition::parse("x.def", definition.text.as_bytes(), &given(&["b=", "a="]));
                prop_assert!(again.is_ok() || definition.text.contains("{{"), "{again:?}");
            }
            Err(error) => {
                prop_assert!(error.to_string().starts_with("x.def:"));
                let lines = bytes.split(|byte| *byte == b'\n').count() as u32;
                prop_assert!(error.line <= lines, "{error}");
            }
        }
    }
}
