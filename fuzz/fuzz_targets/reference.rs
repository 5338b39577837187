//! What people and manifests name images by.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siforge_reference::{Context, Reference};

fuzz_target!(|text: &str| {
    let context = Context { default_namespace: "default", exists: &|_| false };
    if let Ok(Reference::Docker(image)) = Reference::parse(text, &context) {
        let familiar = format!("docker://{}", image.familiar());
        assert_eq!(Reference::parse(&familiar, &context), Ok(Reference::Docker(image)), "{familiar}");
    }
});
