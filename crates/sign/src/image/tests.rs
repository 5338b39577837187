use super::pgp::{Message, PublicKeys, SecretKeys};
use super::verify::{Keys, Legacy, verify};
use super::{Flaw, Kind, Selected};
use proptest::prelude::*;
use siforge_sif::DataType;
use siforge_sif::edit::{Editor, Link, Object, create};
use std::fs::File;

fn sif(signature: Option<&[u8]>) -> Editor {
    let file: File = tempfile::tempfile().expect("a file");
    create(&file, [7; 16], 1_700_000_000).expect("an empty SIF");
    let mut editor = Editor::open(file).expect("an editor");
    let object = Object { group: Some(1), name: "data".into(), ..Object::new(DataType::Generic) };
    editor.add(object, &mut &b"contents"[..]).expect("an object");
    if let Some(mut bytes) = signature {
        let object = Object { link: Link::Group(1), extra: vec![1, 0, 0, 0], ..Object::new(DataType::Signature) };
        editor.add(object, &mut bytes).expect("a signature");
    }
    editor
}

fn flaw(signature: Option<&[u8]>) -> Flaw {
    let editor = sif(signature);
    let report = verify(editor.sif(), &[], Legacy::No, &Keys::default(), 1_800_000_000).expect("a report");
    report.flaw().and_then(|checked| checked.flaw.clone()).expect("a flaw")
}

#[test]
fn what_is_no_signature_is_never_one() {
    let check = |signature: Option<&[u8]>, kind: Kind| {
        let flaw = flaw(signature);
        assert_eq!(flaw.kind(), kind, "{flaw}");
    };
    check(None, Kind::Unsigned);
    check(Some(b""), Kind::BadSignature);
    check(Some(b"\xff\x00rubbish"), Kind::BadSignature);
    check(Some(b"{}"), Kind::BadSignature);
    check(Some(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{}\n"), Kind::BadSignature);
    // An envelope with nothing in it needs a key in PEM before it can be judged.
    let envelope = br#"{"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":"","signatures":[]}"#;
    check(Some(envelope), Kind::UnknownKey);
}

#[test]
fn an_object_outside_all_groups_is_told() {
    let mut editor = sif(None);
    let loose = editor.add(Object::new(DataType::Generic), &mut &b"loose"[..]).expect("an object");
    let report = verify(editor.sif(), &[], Legacy::No, &Keys::default(), 0).expect("a report");
    assert!(report.checked.iter().any(|checked| checked.flaw == Some(Flaw::Ungrouped { id: loose })), "{report:?}");
}

#[test]
fn what_is_selected_must_be_there() {
    let editor = sif(None);
    for selected in [Selected::Group(2), Selected::Object(9)] {
        let failed = verify(editor.sif(), &[selected], Legacy::No, &Keys::default(), 0);
        assert!(failed.is_err(), "{failed:?}");
    }
}

proptest! {
    #[test]
    fn rubbish_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(Message::parse(&bytes).is_err());
        let _ = PublicKeys::parse(&bytes);
        let _ = SecretKeys::parse(&bytes);
    }

    #[test]
    fn rubbish_in_armor_is_no_signature(text in ".{0,200}", body in "[A-Za-z0-9+/=\n]{0,400}") {
        let message = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}\n-----BEGIN PGP SIGNATURE-----\n\n{body}\n-----END PGP SIGNATURE-----\n"
        );
        let kind = flaw(Some(message.as_bytes())).kind();
        prop_assert!(matches!(kind, Kind::BadSignature | Kind::UnknownKey));
    }
}
