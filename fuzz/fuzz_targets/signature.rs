//! Signatures of a SIF, keyrings, keys in PEM. Nothing that is made by chance may count as signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siforge_sif::DataType;
use siforge_sif::edit::{Editor, Link, Object, create};
use siforge_sign::cosign::Key;
use siforge_sign::image::pgp::{PublicKeys, SecretKeys};
use siforge_sign::image::{Keys, Legacy, verify};

fuzz_target!(|bytes: &[u8]| {
    let _ = PublicKeys::parse(bytes);
    let _ = SecretKeys::parse(bytes);
    let _ = Key::from_pem(bytes);
    let Ok(file) = tempfile::tempfile() else { return };
    create(&file, [7; 16], 1_700_000_000).expect("an empty SIF");
    let mut editor = Editor::open(file).expect("what was just made");
    let data = Object { group: Some(1), name: "data".into(), ..Object::new(DataType::Generic) };
    editor.add(data, &mut &b"contents"[..]).expect("an object");
    let signature = Object { link: Link::Group(1), extra: vec![1, 0, 0, 0], ..Object::new(DataType::Signature) };
    editor.add(signature, &mut &*bytes).expect("a signature");
    for legacy in [Legacy::No, Legacy::All] {
        if let Ok(report) = verify(editor.sif(), &[], legacy, &Keys::default(), 1_800_000_000) {
            assert!(report.flaw().is_some(), "signed by nobody");
        }
    }
});
