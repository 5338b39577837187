//! SIF files: looked at, and changed. What was changed must open again.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use siforge_sif::edit::{Editor, Object};
use siforge_sif::{DataType, Sif};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(sif) = Sif::open(file) else { return };
    let _ = sif.primary_partition();
    for descriptor in sif.descriptors() {
        let _ = sif.object(descriptor, 1 << 20);
    }
    let Ok(mut editor) = Editor::open(sif.into_file()) else { return };
    let Ok(id) = editor.add(Object::new(DataType::Generic), &mut &b"added"[..]) else { return };
    let again = editor.sif().file().try_clone().ok().map(Sif::open);
    let Some(again) = again else { return };
    let again = again.unwrap_or_else(|error| panic!("what was written does not open: {error}"));
    let added = again.descriptors().iter().find(|descriptor| descriptor.id == id);
    assert_eq!(added.and_then(|added| again.object(added, 100).ok()).as_deref(), Some(&b"added"[..]));
});
