//! Files of credentials, and registries.conf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siforge_oci::{AuthFile, Registries};
use siforge_reference::{Context, Reference};

fuzz_target!(|bytes: &[u8]| {
    let context = Context { default_namespace: "default", exists: &|_| false };
    let Ok(Reference::Docker(image)) = Reference::parse("docker://quay.io/org/name:1", &context) else {
        unreachable!("it is one");
    };
    if let Ok(file) = AuthFile::parse(bytes) {
        let _ = file.credentials(&image);
        file.list();
    }
    let mut registries = Registries::default();
    if let Ok(text) = std::str::from_utf8(bytes)
        && registries.add("registries.conf", text).is_ok()
    {
        let _ = registries.locations(&image);
    }
});
