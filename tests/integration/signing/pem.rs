//! Signatures by keys in PEM and X.509 certificates, as openssl makes them: what either program signs, the other verifies.

use super::{Signing, change, is_signature, object};
use siforge_sif::Descriptor;
use siforge_tests::run::sh;
use std::fs;

impl Signing {
    fn openssl(&self, words: &[&str]) {
        sh("openssl", words);
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[test]
fn keys_in_pem_sign_and_verify_both_ways() {
    let signing = Signing::new();
    let makers: [(&str, &[&str]); 5] = [
        ("ec", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("sec1", &["ecparam", "-name", "prime256v1", "-genkey"]),
        ("rsa", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("pkcs1", &["genrsa", "-traditional"]),
        ("ed", &["genpkey", "-algorithm", "ed25519"]),
    ];
    for (name, maker) in makers {
        let (private, public) = (signing.file(&format!("{name}.pem")), signing.file(&format!("{name}.pub")));
        signing.openssl(&[&[maker[0], "-out", &private], &maker[1..]].concat());
        signing.openssl(&["pkey", "-pubout", "-in", &private, "-out", &public]);
        let there = |file: &str| signing.apptainer.there(&format!("{name}{file}"));

        // Ours.
        let ours = signing.copy("plain.sif", &format!("{name}-ours.sif"));
        signing.siforge.run(&["sign", "--key", &private, &ours.display().to_string()]).ok();
        signing.theirs(&["apptainer", "verify", "--key", &there(".pub"), &there("-ours.sif")]).ok();
        signing.ours("verify", &["--key", &public], &ours).ok();

        // Theirs; it does not read a key behind its parameters, which `openssl ecparam` writes.
        if name == "sec1" {
            continue;
        }
        let theirs = signing.copy("plain.sif", &format!("{name}-theirs.sif"));
        signing.theirs(&["apptainer", "sign", "--key", &there(".pem"), &there("-theirs.sif")]).ok();
        let verified = signing.ours("verify", &["--key", &public], &theirs).ok();
        assert!(verified.stdout.contains("Fingerprint: SHA256:"), "{verified}");
        // The same words about the key, but for the signature itself.
        let (mine, his) = (object(&ours, is_signature), object(&theirs, is_signature));
        assert_eq!((mine.link, &mine.extra, mine.group), (his.link, &his.extra, his.group));

        // Without the key nothing is known, with another it does not count, and a changed object is found.
        signing.ours("verify", &[], &theirs).fails_with(5);
        let other = signing.path("other.pub");
        if other.exists() {
            signing.ours("verify", &["--key", &other.display().to_string()], &theirs).fails_with(4);
        }
        fs::copy(&public, &other).unwrap();
        for sif in [&ours, &theirs] {
            let partition = object(sif, Descriptor::is_primary_partition);
            change(sif, partition.offset + 200, b"tampered");
            signing.ours("verify", &["--key", &public], sif).fails_with(6);
        }
    }
}

#[test]
fn keys_in_pem_that_do_not_sign() {
    let signing = Signing::new();
    let sif = signing.copy("plain.sif", "unsigned.sif");
    let check = |name: &str, words: &[&str], expect: &str| {
        let file = signing.file(name);
        if !words.is_empty() {
            signing.openssl(&[&[words[0], "-out", &file], &words[1..]].concat());
        }
        let failed = signing.siforge.run(&["sign", "--key", &file, &sif.display().to_string()]).fails_with(255);
        assert!(failed.stderr.contains(expect), "{failed}");
        assert_eq!(fs::read(&sif).unwrap(), fs::read(signing.path("plain.sif")).unwrap());
    };
    let p256 = "ec_paramgen_curve:P-256";
    check(
        "locked",
        &["genpkey", "-algorithm", "EC", "-pkeyopt", p256, "-aes256", "-pass", "pass:word"],
        "openssl pkey",
    );
    check("p521", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "P-256, RSA of 2048");
    check("small", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "RSA of 2048");
    check("plain.sif", &[], "more than");
    fs::write(signing.path("rubbish"), "-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n").unwrap();
    check("rubbish", &[], "damaged");
    fs::write(signing.path("text"), "no key").unwrap();
    check("text", &[], "no private key in PEM");
    let good = signing.file("good");
    signing.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", p256, "-out", &good]);
    fs::write(signing.path("two"), [fs::read(&good).unwrap(), fs::read(&good).unwrap()].concat()).unwrap();
    check("two", &[], "2 private keys");
}

/// A certificate for the key `<name>.pem`, signed by `<issuer>`, or by itself.
fn certificate(signing: &Signing, name: &str, issuer: Option<&str>, days: &str, extensions: &[&str]) {
    let file = |name: &str, suffix: &str| signing.file(&format!("{name}.{suffix}"));
    let key = file(name, "pem");
    signing.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
    let (subject, out) = (format!("/CN={name}"), file(name, "crt"));
    let mut words = vec!["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", days, "-out", &out];
    let (ca, ca_key);
    if let Some(issuer) = issuer {
        (ca, ca_key) = (file(issuer, "crt"), file(issuer, "pem"));
        words.extend(["-CA", &ca, "-CAkey", &ca_key]);
    }
    for extension in extensions {
        words.extend(["-addext", extension]);
    }
    signing.openssl(&words);
}

/// One that was valid in January of 2020: only `openssl ca` takes dates.
fn expired_certificate(signing: &Signing, name: &str, issuer: &str) {
    let file = |name: &str, suffix: &str| signing.file(&format!("{name}.{suffix}"));
    let (key, request, out) = (file(name, "pem"), file(name, "csr"), file(name, "crt"));
    signing.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
    signing.openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &request]);
    let (config, index, folder) = (file(name, "conf"), file(name, "index"), signing.path(""));
    fs::write(&index, "").unwrap();
    let text = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={index}\nnew_certs_dir={}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n\
         x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nextendedKeyUsage=codeSigning\n",
        folder.display()
    );
    fs::write(&config, text).unwrap();
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"];
    let (ca, ca_key) = (file(issuer, "crt"), file(issuer, "pem"));
    let words = ["ca", "-batch", "-config", &config, "-cert", &ca, "-keyfile", &ca_key, "-in", &request, "-out", &out];
    signing.openssl(&[&words[..], &dates].concat());
}

#[test]
fn certificates_lead_to_a_root() {
    const CA: &[&str] = &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
    const LEAF: &[&str] = &["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=codeSigning"];
    let signing = Signing::new();
    certificate(&signing, "root", None, "30", CA);
    certificate(&signing, "stranger", None, "30", CA);
    certificate(&signing, "middle", Some("root"), "30", CA);
    certificate(&signing, "leaf", Some("middle"), "30", LEAF);
    let web = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"];
    certificate(&signing, "web", Some("root"), "30", &web);
    expired_certificate(&signing, "expired", "root");

    let sif = signing.copy("plain.sif", "certified.sif");
    signing.siforge.run(&["sign", "--key", &signing.file("leaf.pem"), &sif.display().to_string()]).ok();
    let check = |leaf: &str, middle: Option<&str>, root: &str, expect: Result<(), (i32, &str)>| {
        let mut ours = vec!["--certificate".to_owned(), signing.file(&format!("{leaf}.crt"))];
        ours.extend(["--certificate-roots".into(), signing.file(&format!("{root}.crt"))]);
        let there = |name: &str| signing.apptainer.there(&format!("{name}.crt"));
        let (leaf, root) = (there(leaf), there(root));
        let mut theirs = vec!["--certificate", &leaf, "--certificate-roots", &root];
        let there_middle;
        if let Some(middle) = middle {
            ours.extend(["--certificate-intermediates".into(), signing.file(&format!("{middle}.crt"))]);
            there_middle = there(middle);
            theirs.extend(["--certificate-intermediates", &there_middle]);
        }
        let ours = signing.ours("verify", &ours.iter().map(String::as_str).collect::<Vec<_>>(), &sif);
        // The reference says the same.
        let theirs = signing.they_verify("certified.sif", &theirs);
        assert_eq!(theirs.success(), expect.is_ok(), "{theirs}");
        match expect {
            Ok(()) => drop(ours.ok()),
            Err((code, words)) => {
                let failed = ours.fails_with(code);
                assert!(failed.stderr.contains(words), "{failed}");
            }
        }
    };
    check("leaf", Some("middle"), "root", Ok(()));
    check("leaf", None, "middle", Ok(()));
    check("leaf", None, "root", Err((255, "does not lead to a root")));
    check("leaf", Some("middle"), "stranger", Err((255, "does not lead to a root")));
    check("web", None, "root", Err((255, "not for code signing")));
    check("expired", None, "root", Err((255, "not valid now")));
    // Roots that are none.
    check("web", None, "web", Err((255, "not for code signing")));
    check("leaf", None, "expired", Err((255, "none of the roots")));
    check("leaf", Some("middle"), "web", Err((255, "none of the roots")));
    // A chain that holds, of a key that did not sign.
    certificate(&signing, "colleague", Some("root"), "30", LEAF);
    check("colleague", None, "root", Err((4, "no signature in it is by the key")));

    let roots = signing.file("root.crt");
    let missing = signing.ours("verify", &["--certificate", &roots], &sif).fails_with(255);
    assert!(missing.stderr.contains("--certificate-roots"), "{missing}");
    let none =
        signing.ours("verify", &["--certificate", &signing.file("leaf.pem"), "--certificate-roots", &roots], &sif);
    assert!(none.fails_with(255).stderr.contains("no certificate in PEM"));
    let leaf = signing.file("leaf.crt");
    let words = ["--certificate", &*leaf, "--certificate-roots", &*roots, "--ocsp-verify"];
    assert!(signing.ours("verify", &words, &sif).fails_with(255).stderr.contains("--ocsp-verify"));
}
