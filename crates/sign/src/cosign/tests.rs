use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What comes before the key's bytes in a SubjectPublicKeyInfo (RFC 5480, RFC 8410).
const P256_HEAD: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const P384_HEAD: &str = "3076301006072a8648ce3d020106052b81040022036200";
const ED25519_HEAD: &str = "302a300506032b6570032100";

const PH_KEY: &str = "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf";
const PH_SIGNATURE: &str = "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406";

enum Pair {
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Pair {
    fn p256() -> Self {
        Self::ec(&ECDSA_P256_SHA256_ASN1_SIGNING, P256_HEAD)
    }

    fn all() -> [Self; 3] {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("Ed25519");
        let ed = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("Ed25519");
        [Self::p256(), Self::ec(&ECDSA_P384_SHA384_ASN1_SIGNING, P384_HEAD), Self::Ed(ed)]
    }

    fn ec(algorithm: &'static ring::signature::EcdsaSigningAlgorithm, head: &'static str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("EC");
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("EC"), head)
    }

    fn pem(&self) -> String {
        let (head, key) = match self {
            Self::Ec(pair, head) => (*head, pair.public_key().as_ref()),
            Self::Ed(pair) => (ED25519_HEAD, pair.public_key().as_ref()),
        };
        pem("PUBLIC KEY", &[&unhex(head), key].concat())
    }

    fn key(&self) -> Key {
        Key::from_pem(self.pem().as_bytes()).expect("key")
    }

    fn sign(&self, message: &[u8]) -> String {
        match self {
            Self::Ec(pair, _) => STANDARD.encode(pair.sign(&SystemRandom::new(), message).expect("sign")),
            Self::Ed(pair) => STANDARD.encode(pair.sign(message)),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn subject() -> Subject<'static> {
    Subject { digest: digest(MANIFEST), bytes: MANIFEST }
}

fn payload(of: &Digest) -> Value {
    json!({ "critical": { "identity": { "docker-reference": "host/x" }, "image": { "docker-manifest-digest": of },
            "type": "cosign container image signature" }, "optional": null })
}

fn statement(of: &Digest) -> Value {
    json!({ "_type": "https://in-toto.io/Statement/v1", "subject": [{ "digest": { "sha256": of.hex() } }],
            "predicateType": SIGN_PREDICATE, "predicate": {} })
}

/// A layer as a registry has it.
#[derive(Clone)]
struct Layer {
    media_type: &'static str,
    annotations: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

impl Layer {
    fn simple(pair: &Pair, payload: &Value) -> Self {
        let bytes = payload.to_string().into_bytes();
        let annotations = BTreeMap::from([(SIGNATURE.to_owned(), pair.sign(&bytes))]);
        Self { media_type: SIMPLE_SIGNING, annotations, bytes }
    }

    fn bundle(content: Value) -> Self {
        let mut bundle = json!({ "mediaType": BUNDLE, "verificationMaterial": { "publicKey": { "hint": "x" } } });
        bundle.as_object_mut().expect("object").extend(content.as_object().expect("object").clone());
        Self { media_type: BUNDLE, annotations: BTreeMap::new(), bytes: bundle.to_string().into_bytes() }
    }

    fn envelope(pair: &Pair, payload_type: &str, payload: &Value) -> Self {
        let payload = payload.to_string().into_bytes();
        let mut pae = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
        pae.extend_from_slice(&payload);
        Self::bundle(json!({ "dsseEnvelope": { "payload": STANDARD.encode(&payload), "payloadType": payload_type,
                             "signatures": [{ "sig": pair.sign(&pae) }] } }))
    }

    fn dsse(pair: &Pair, statement: &Value) -> Self {
        Self::envelope(pair, "application/vnd.in-toto+json", statement)
    }

    fn message(pair: &Pair, bytes: &[u8], claimed: &[u8]) -> Self {
        let claimed = STANDARD.encode(Sha256::digest(claimed));
        Self::bundle(json!({ "messageSignature": { "messageDigest": { "algorithm": "SHA2_256", "digest": claimed },
                             "signature": pair.sign(bytes) } }))
    }

    /// The same with one member of its JSON changed.
    fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut json: Value = serde_json::from_slice(&self.bytes).expect("JSON");
        *json.pointer_mut(pointer).expect(pointer) = value;
        self.bytes = json.to_string().into_bytes();
        self
    }

    fn verify(&self, keys: &[Key]) -> Result<usize, Flaw> {
        let Self { media_type, annotations, bytes } = self;
        verify(&Signature { media_type, annotations, bytes }, &subject(), keys)
    }
}

#[test]
fn each_layout_and_key_is_verified() {
    for pair in Pair::all() {
        let keys = [Pair::p256().key(), pair.key()];
        let of = subject().digest;
        let escaped = URL_SAFE_NO_PAD.encode(statement(&of).to_string());
        let old = json!("https://in-toto.io/Statement/v0.1");
        for layer in [
            Layer::simple(&pair, &payload(&of)),
            Layer::dsse(&pair, &statement(&of)),
            Layer::dsse(&pair, &statement(&of)).with("/dsseEnvelope/payload", json!(escaped)),
            Layer::dsse(&pair, &statement(&of))
                .with("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.3")),
            Layer::dsse(&pair, &{
                let mut it = statement(&of);
                it["_type"] = old;
                it
            }),
            Layer::message(&pair, MANIFEST, MANIFEST),
        ] {
            assert_eq!(layer.verify(&keys), Ok(1), "{}", String::from_utf8_lossy(&layer.bytes));
            assert_eq!(layer.verify(&keys[..1]), Err(Flaw::OtherKey));
            assert_eq!(layer.verify(&[]), Err(Flaw::OtherKey));
        }
    }
}

/// A layer that is no signature of the subject by `pair`, and what is said of it.
#[track_caller]
fn refused(pair: &Pair, name: &str, layer: Layer, text: &str) {
    let flaw = layer.verify(&[pair.key()]).expect_err(name).to_string();
    assert!(flaw.contains(text), "{name}: {flaw}");
}

#[test]
fn simple_signing_that_does_not_count_is_named() {
    let pair = Pair::p256();
    let (of, other) = (subject().digest, digest(b"other"));
    let check = |name: &str, layer: Layer, text: &str| refused(&pair, name, layer, text);
    let simple = Layer::simple(&pair, &payload(&of));
    check("other digest", Layer::simple(&pair, &payload(&other)), &format!("but of {other}"));
    check("tampered", simple.clone().with("/critical/image/docker-manifest-digest", json!(other)), "another key");
    check("optional tampered", simple.clone().with("/optional", json!({ "by": "me" })), "another key");
    let typed = |kind: &str| {
        let mut it = payload(&of);
        it["critical"]["type"] = json!(kind);
        Layer::simple(&pair, &it)
    };
    check("type", typed("a blob"), "not a signature of an image but \"a blob\"");
    check(
        "no JSON",
        Layer {
            annotations: BTreeMap::from([(SIGNATURE.into(), pair.sign(b"{"))]),
            bytes: b"{".to_vec(),
            ..simple.clone()
        },
        "payload not understood",
    );
    check("no annotation", Layer { annotations: BTreeMap::new(), ..simple.clone() }, "no annotation");
    check(
        "no base64",
        Layer { annotations: BTreeMap::from([(SIGNATURE.into(), "%".into())]), ..simple.clone() },
        "signature not understood",
    );
    check(
        "no signature",
        Layer { annotations: BTreeMap::from([(SIGNATURE.into(), String::new())]), ..simple.clone() },
        "another key",
    );
    let mut keyless = Layer::simple(&Pair::p256(), &payload(&of));
    keyless.annotations.insert(CERTIFICATE.into(), "-----BEGIN".into());
    check("keyless", keyless, "keyless");
    check("truncated", Layer { bytes: simple.bytes[..20].to_vec(), ..simple.clone() }, "another key");
    check("huge", Layer { bytes: vec![b' '; MAX_BYTES as usize + 1], ..simple.clone() }, "at most 1048576");
    check("media type", Layer { media_type: "text/html", ..simple.clone() }, "media type \"text/html\"");
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let signed = BTreeMap::from([(SIGNATURE.to_owned(), pair.sign(deep.as_bytes()))]);
    check(
        "signed and too deep",
        Layer { annotations: signed, bytes: deep.into_bytes(), ..simple },
        "depth of the JSON",
    );
}

#[test]
fn envelopes_that_do_not_count_are_named() {
    let pair = Pair::p256();
    let (of, other) = (subject().digest, digest(b"other"));
    let check = |name: &str, layer: Layer, text: &str| refused(&pair, name, layer, text);
    let dsse = Layer::dsse(&pair, &statement(&of));
    check("other digest", Layer::dsse(&pair, &statement(&other)), &format!("but of {other}"));
    let replaced = STANDARD.encode(statement(&other).to_string());
    check("payload replaced", dsse.clone().with("/dsseEnvelope/payload", json!(replaced)), "another key");
    check("payload type replaced", dsse.clone().with("/dsseEnvelope/payloadType", json!("text/plain")), "another key");
    check("payload type", Layer::envelope(&pair, "text/plain", &statement(&of)), "a payload of type \"text/plain\"");
    let predicate = |kind: &str| {
        let mut it = statement(&of);
        it["predicateType"] = json!(kind);
        Layer::dsse(&pair, &it)
    };
    check("attestation", predicate("https://spdx.dev/Document"), "an attestation (https://spdx.dev/Document)");
    let mut empty = statement(&of);
    empty["subject"] = json!([]);
    check("no subject", Layer::dsse(&pair, &empty), "but of nothing");
    empty["subject"] = json!(vec![json!({}); 65]);
    check("subjects", Layer::dsse(&pair, &empty), "at most 64");
    check(
        "two signatures",
        dsse.clone().with("/dsseEnvelope/signatures", json!([{ "sig": "" }, { "sig": "" }])),
        "2 signatures",
    );
    check("no signature", dsse.clone().with("/dsseEnvelope/signatures", json!([])), "0 signatures");
    check(
        "version",
        dsse.clone().with("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.1")),
        "not supported",
    );
    check("bundle truncated", Layer { bytes: dsse.bytes[..99].to_vec(), ..dsse.clone() }, "bundle not understood");
    check("neither", Layer::bundle(json!({})), "neither an envelope nor");
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    check("too deep", Layer { bytes: deep.into_bytes(), ..dsse.clone() }, "depth of the JSON is 33, at most 32");
    let certificate = Layer::dsse(&Pair::p256(), &statement(&of))
        .with("/verificationMaterial", json!({ "certificate": { "rawBytes": "" } }));
    check("keyless", certificate, "keyless");
}

#[test]
fn messages_that_do_not_count_are_named() {
    let pair = Pair::p256();
    let (of, other) = (subject().digest, digest(b"other"));
    let check = |name: &str, layer: Layer, text: &str| refused(&pair, name, layer, text);
    let dsse = Layer::dsse(&pair, &statement(&of));
    check("message of another", Layer::message(&pair, b"other", b"other"), &other.to_string());
    check("message that lies", Layer::message(&pair, b"other", MANIFEST), "another key");
    let both = Layer::message(&pair, MANIFEST, MANIFEST);
    let mut json: Value = serde_json::from_slice(&both.bytes).expect("JSON");
    json["dsseEnvelope"] = serde_json::from_slice::<Value>(&dsse.bytes).expect("JSON")["dsseEnvelope"].clone();
    check("both", Layer { bytes: json.to_string().into_bytes(), ..both }, "both an envelope and");
}

#[test]
fn keys() {
    let check = |name: &str, text: &str, expect: &str| {
        let error = Key::from_pem(text.as_bytes()).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    };
    let good = Pair::p256().pem();
    let key = Key::from_pem(format!("# of the site\n{good}").as_bytes()).expect("comments");
    assert!(key.fingerprint().starts_with("SHA256:") && key.fingerprint().len() == 51, "{key:?}");
    check("empty", "", "no public key in PEM");
    check("rubbish", "\0\u{1}key", "no public key in PEM");
    check("two", &format!("{good}{good}"), "2 public keys");
    check("private", &pem("PRIVATE KEY", b"x"), "private key");
    check("cosign's private", &pem("ENCRYPTED SIGSTORE PRIVATE KEY", b"x"), "private key");
    check("certificate", &pem("CERTIFICATE", b"x"), "certificate");
    check("cut off", &good[..60], "PEM");
    check("no DER", &pem("PUBLIC KEY", b"x"), "damaged");
    check("point", &pem("PUBLIC KEY", &[unhex(P256_HEAD), vec![2; 65]].concat()), "damaged");
    check("short", &pem("PUBLIC KEY", &[unhex(ED25519_HEAD), vec![0; 31]].concat()), "damaged");
    // P-521 and X25519.
    check("curve", &pem("PUBLIC KEY", &unhex("3016301006072a8648ce3d020106052b8104002303020004")), "1.3.132.0.35");
    check("algorithm", &pem("PUBLIC KEY", &[unhex("302a300506032b656e032100"), vec![0; 32]].concat()), "1.3.101.110");
    // RSA: the modulus 2^1023.
    let modulus = [vec![2, 0x81, 0x81, 0, 0x80], vec![0; 127], vec![2, 3, 1, 0, 1]].concat();
    let rsa = [vec![0x30, 0x81, modulus.len() as u8], modulus].concat();
    let bits = [vec![3, 0x81, rsa.len() as u8 + 1, 0], rsa].concat();
    let body = [unhex("300d06092a864886f70d0101010500"), bits].concat();
    check("RSA", &pem("PUBLIC KEY", &[vec![0x30, 0x81, body.len() as u8], body].concat()), "1024 bits");
}

/// RFC 8032, 7.3: the vector of Ed25519ph.
#[test]
fn ed25519ph() {
    let key = Key::from_pem(pem("PUBLIC KEY", &[unhex(ED25519_HEAD), unhex(PH_KEY)].concat()).as_bytes()).expect("key");
    assert!(key.signed(b"abc", &unhex(PH_SIGNATURE)));
    assert!(!key.signed(b"abd", &unhex(PH_SIGNATURE)) && !key.signed(b"abc", &[0; 64]) && !key.signed(b"abc", b""));
}

#[test]
fn attestations_are_known_by_their_word() {
    let check = |predicate: Option<&str>, expect: bool| {
        let annotations = predicate.map(|value| (PREDICATE.to_owned(), value.to_owned())).into_iter().collect();
        assert_eq!(is_another_attestation(&annotations), expect, "{predicate:?}");
    };
    check(None, false);
    check(Some(SIGN_PREDICATE), false);
    check(Some("https://slsa.dev/provenance/v1"), true);
}

proptest! {
    #[test]
    fn rubbish_is_refused(bytes: Vec<u8>, annotation: String, bundle: bool) {
        let media_type = if bundle { BUNDLE } else { SIMPLE_SIGNING };
        let layer = Layer { media_type, annotations: BTreeMap::from([(SIGNATURE.into(), annotation)]), bytes };
        prop_assert!(layer.verify(&[Pair::p256().key()]).is_err());
        prop_assert!(Key::from_pem(&layer.bytes).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed(at: prop::sample::Index, by in 1..=255_u8, which in 0..3_usize) {
        let pair = Pair::p256();
        let of = subject().digest;
        let mut layer = match which {
            0 => Layer::simple(&pair, &payload(&of)),
            1 => Layer::dsse(&pair, &statement(&of)),
            _ => Layer::message(&pair, MANIFEST, MANIFEST),
        };
        let at = at.index(layer.bytes.len());
        layer.bytes[at] ^= by;
        // Of a bundle not every byte is signed; but what comes out is still a signature of this image by this key.
        if let Ok(key) = layer.verify(&[pair.key()]) {
            prop_assert!(which > 0 && key == 0);
        }
    }
}
