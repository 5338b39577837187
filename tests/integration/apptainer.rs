//! The reference and we on the same images: each runs, executes and inspects the other's SIF, and all four combinations
//! give the same.
//!
//! ```text
//!                   SIF of siforge     SIF of Apptainer       both pulled from one registry
//!   siforge          ours/ours          ours/theirs           as root and as a user
//!   apptainer        theirs/ours        theirs/theirs
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Compression, Finished, Image, Registry, Siforge, Tar, images, need, run};

/// Both programs with all images: `<name>-ours.sif`, `<name>-theirs.sif`.
struct Both {
    apptainer: Apptainer,
    siforge: [Siforge; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Root,
    User,
}

const EVERYBODY: [Who; 2] = [Who::Root, Who::User];
const MAKERS: [&str; 2] = ["ours", "theirs"];

impl Both {
    /// Pulls every image with both programs and gives both programs both files.
    fn pull(images: &[(&str, Image)]) -> Self {
        let both = Self { apptainer: Apptainer::new(), siforge: Siforge::both() };
        let registry = Registry::plain();
        for (name, image) in images {
            registry.push(name, image);
            let source = registry.reference(name);
            let (ours, theirs) = (format!("{name}-ours.sif"), format!("{name}-theirs.sif"));
            both.siforge[0].run(&["pull", "--no-https", &ours, &source]).ok();
            let there = both.apptainer.there(&theirs);
            both.apptainer.root(&["apptainer", "-q", "pull", "--no-https", &there, &source]).ok();
            both.share(&both.siforge[0].out().join(&ours), &ours);
            both.share(&both.apptainer.here().join(&theirs), &theirs);
        }
        both
    }

    fn share(&self, from: &std::path::Path, name: &str) {
        let places = [self.siforge[0].out(), self.siforge[1].out(), self.apptainer.here().to_path_buf()];
        for to in places.map(|dir| dir.join(name)) {
            if to != from {
                fs::copy(from, &to).unwrap_or_else(|e| panic!("copy to {}: {e}", to.display()));
            }
        }
    }

    /// siforge on `<image>.sif`, with the environment that `enter` gives Apptainer.
    fn ours(&self, who: Who, words: &[&str]) -> Finished {
        let siforge = &self.siforge[usize::from(who == Who::User)];
        let mut command = siforge.command();
        command.env("LC_ALL", "C.UTF-8");
        run(command.args(words.iter().map(|word| match word.strip_suffix(".sif") {
            Some(_) => siforge.out().join(word).display().to_string(),
            None => (*word).to_owned(),
        })))
    }

    fn theirs(&self, who: Who, words: &[&str]) -> Finished {
        let words = words.iter().map(|word| match word.strip_suffix(".sif") {
            Some(_) => self.apptainer.there(word),
            None => (*word).to_owned(),
        });
        let all: Vec<String> = ["apptainer", "-q"].map(String::from).into_iter().chain(words).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        match who {
            Who::Root => self.apptainer.root(&all),
            Who::User => self.apptainer.user(&all),
        }
    }

    /// Runs `words` in all four combinations; `IMAGE` in them is the SIF. All give the same code and standard output.
    #[track_caller]
    fn same(&self, who: Who, image: &str, words: &[&str]) -> Finished {
        let mut first: Option<Finished> = None;
        for maker in MAKERS {
            let sif = format!("{image}-{maker}.sif");
            let words: Vec<&str> = words.iter().map(|word| if *word == "IMAGE" { &*sif } else { *word }).collect();
            for ran in [self.theirs(who, &words), self.ours(who, &words)] {
                let same =
                    first.as_ref().is_none_or(|first| (first.code(), &first.stdout) == (ran.code(), &ran.stdout));
                assert!(same, "{who:?}: {}\n{ran}", first.map_or_else(String::new, |first| first.to_string()));
                first = first.or(Some(ran));
            }
        }
        first.unwrap_or_else(|| panic!("nothing ran"))
    }
}

#[test]
fn commands_end_alike_in_every_combination() {
    let both = Both::pull(&[("tiny", images::tiny())]);
    for who in EVERYBODY {
        let said = both.same(who, "tiny", &["exec", "IMAGE", "sh", "-c", "echo $TINY; test ! -e /bin/reboot; exit 7"]);
        assert_eq!((said.code(), said.stdout.as_str()), (7, "yes\n"));
        let said = both.same(who, "tiny", &["run", "IMAGE", "echo", "from run"]).ok();
        assert_eq!(said.stdout, "from run\n");
        both.same(who, "tiny", &["exec", "IMAGE", "sh", "-c", "kill -TERM $$"]);
        both.same(who, "tiny", &["exec", "--pid", "IMAGE", "sh", "-c", "exit 9"]);
        assert_eq!(both.same(who, "tiny", &["exec", "IMAGE", "no-such-command"]).code(), 255);
        assert_eq!(both.same(who, "tiny", &["exec", "IMAGE", "/no/such/command"]).code(), 255);
        both.same(who, "tiny", &["exec", "--cwd", "/usr/bin", "IMAGE", "pwd"]);
        both.same(
            who,
            "tiny",
            &[
                "exec",
                "--contain",
                "IMAGE",
                "sh",
                "-c",
                "ls -A /tmp /var/tmp; ls /dev | grep -v -e core -e console -e full | tr '\\n' ' '",
            ],
        );
        both.same(
            who,
            "tiny",
            &["exec", "--no-home", "--writable-tmpfs", "IMAGE", "sh", "-c", "echo x > /etc/x && cat /etc/x"],
        );
        both.same(who, "tiny", &["exec", "IMAGE", "sh", "-c", "find / -xdev -maxdepth 1 | sort"]);
    }
    // `file` and the shebang know ours too.
    let file = run(Command::new("file").arg(both.siforge[0].out().join("tiny-ours.sif"))).ok();
    assert!(file.stdout.contains("run-singularity script executable"), "{file}");
}

/// busybox and a program that prints its arguments in brackets.
fn with_command(entrypoint: Option<Value>, cmd: Option<Value>) -> Image {
    let argv = "#!/bin/sh\nprintf '[%s]' \"$0\" \"$@\"\n";
    let layer = Tar::new()
        .dir("bin", 0o755)
        .file("bin/busybox", 0o755, fs::read(need::program("busybox")).unwrap())
        .symlink("bin/sh", "busybox")
        .symlink("bin/printf", "busybox")
        .file("bin/argv", 0o755, argv)
        .finish();
    let image = Image::new().layer(layer, Compression::Zstd).config("Env", json!(["PATH=/bin", "WORD=a  b"]));
    let set = |image: Image, key: &str, value: Option<Value>| match value {
        Some(value) => image.config(key, value),
        None => image,
    };
    let image = set(image, "Entrypoint", entrypoint);
    set(image, "Cmd", cmd)
}

/// The argv that a command of ENTRYPOINT and CMD gets, with and without arguments.
#[test]
fn entrypoint_and_cmd_make_the_same_argv() {
    let entrypoint = || Some(json!(["/bin/argv", "of entrypoint", "$WORD"]));
    let images = [
        ("entrypoint", with_command(entrypoint(), None)),
        ("cmd", with_command(None, Some(json!(["/bin/argv", "of cmd"])))),
        ("both", with_command(entrypoint(), Some(json!(["of  cmd", "$WORD", "\"quoted\""])))),
        ("neither", with_command(None, None)),
    ];
    let both = Both::pull(&images);
    let arguments: [&[&str]; 3] = [
        &[],
        &["/bin/argv", "a  b", "it's", "-c"],
        // Not a double quote: the reference loses it.
        &["/bin/argv", "$WORD", "*"],
    ];
    for (name, _) in &images {
        for given in arguments {
            // Without anything to run, both fail; the reference then starts a shell's usage instead of an error.
            if *name == "neither" && given.is_empty() {
                continue;
            }
            let said = both.same(Who::Root, name, &[&["run", "IMAGE"], given].concat());
            assert!(said.stdout.starts_with("[/bin/argv]"), "{name} {given:?}: {said}");
        }
    }
    let said = both.same(Who::User, "both", &["run", "IMAGE", "$WORD", "x y"]).ok();
    assert!(said.stdout.starts_with("[/bin/argv][of entrypoint]"), "{said}");
}

/// Variables that differ for a reason: where the SIF lies, what shells and the reference's own helpers set.
const OWN: [&str; 14] = [
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
    "APPTAINER_NAME",
    "SINGULARITY_NAME",
    "PWD",
    "HOME",
    "USER",
    // The reference's helper for binds of the host's PATH.
    "USER_PATH",
    // Told to the reference by its OCI library when the caller has none.
    "TERM",
    // Set by the way into the tree.
    "LOGNAME",
    "OLDPWD",
    "XDG_RUNTIME_DIR",
    // Counts the reference's own interpreter.
    "SHLVL",
    // The same effect, other quotes.
    "PROMPT_COMMAND",
];

fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let ours = |name: &str| OWN.contains(&name) || name.starts_with("SIFORGE_");
    pairs.filter(|(name, _)| !ours(name)).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn the_environment_is_the_same() {
    let env = json!([
        "PATH=/bin:/usr/bin:/opt/x",
        "PLAIN=yes",
        "SPACES=a  b ",
        "EMPTY=",
        "EQUALS=a=b=c",
        "UNICODE=é",
        "GLOB=*",
        "SEMI=a;b&c|d",
        "HOST=image",
        "LD_LIBRARY_PATH=/opt/lib",
        "PS1=mine> ",
        "LANG=xx"
    ]);
    let both = Both::pull(&[("env", images::tiny().config("Env", env))]);
    let rows: [&[&str]; 6] = [
        &[],
        &["--cleanenv"],
        &["--env", "PLAIN=option,NEW=1"],
        &["--env", "PREPEND_PATH=/first"],
        &["--env", "APPEND_PATH=/last"],
        &["--containall"],
    ];
    for who in EVERYBODY {
        for options in rows {
            let seen = |ran: Finished| variables(&ran.ok().stdout);
            let words = |maker: &'static str| {
                let sif: &'static str = if maker == "ours" { "env-ours.sif" } else { "env-theirs.sif" };
                [&["exec"], options, &[sif, "env"]].concat()
            };
            let want = seen(both.theirs(who, &words("theirs")));
            assert!(want.len() > 10 && want["EQUALS"] == "a=b=c", "{want:?}");
            for (what, got) in [
                ("ours/ours", both.ours(who, &words("ours"))),
                ("ours/theirs", both.ours(who, &words("theirs"))),
                ("theirs/ours", both.theirs(who, &words("ours"))),
            ] {
                assert_eq!(seen(got), want, "{what} {who:?} {options:?}");
            }
        }
    }
}

fn attributes(inspected: &Finished) -> Value {
    let json: Value = serde_json::from_str(&inspected.stdout).unwrap_or_else(|e| panic!("{e}: {inspected}"));
    assert_eq!(json["type"], "container", "{inspected}");
    json["data"]["attributes"].clone()
}

#[test]
fn inspect_reads_the_same_out_of_both_files() {
    let both = Both::pull(&[("tiny", images::tiny())]);
    for sif in ["tiny-ours.sif", "tiny-theirs.sif"] {
        let words = ["inspect", "--all", "--json", sif];
        let want = attributes(&both.theirs(Who::Root, &words).ok());
        for who in EVERYBODY {
            assert_eq!(attributes(&both.ours(who, &words).ok()), want, "{sif}");
        }
        assert!(want["runscript"].as_str().is_some_and(|text| text.starts_with("#!/bin/sh")), "{want:#}");
        assert!(
            want["environment"]["/.singularity.d/env/10-docker2singularity.sh"].to_string().contains("TINY"),
            "{want:#}"
        );
        let part = |option| {
            (
                both.theirs(Who::Root, &["inspect", option, sif]).ok().stdout,
                both.ours(Who::User, &["inspect", option, sif]).ok().stdout,
            )
        };
        for option in ["--labels", "--deffile", "--runscript"] {
            let (theirs, ours) = part(option);
            assert_eq!(ours.trim_end(), theirs.trim_end(), "{option} {sif}");
        }
    }
    // Ours has every label of theirs but the clock and the version.
    let labels = |maker| attributes(&both.theirs(Who::Root, &["inspect", "--json", maker]).ok())["labels"].clone();
    let (ours, theirs) = (labels("tiny-ours.sif"), labels("tiny-theirs.sif"));
    let varies = |name: &str| ["build-date", "version", "deffile.from"].iter().any(|end| name.ends_with(end));
    for (name, value) in theirs.as_object().into_iter().flatten().filter(|(name, _)| !varies(name)) {
        assert_eq!(&ours[name], value, "{name}");
    }
}

#[test]
fn the_reference_lists_our_objects_and_finds_no_signature() {
    let both = Both::pull(&[("tiny", images::tiny())]);
    let objects = |sif| {
        let text = both.theirs(Who::Root, &["sif", "list", sif]).ok().stdout;
        // ID, group, link and type; where they lie differs.
        let rows = text.lines().filter(|line| line.contains('|') && !line.starts_with("ID"));
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            [cells[0], cells[1], cells[2], cells[4]].join(" ")
        })
        .collect::<Vec<_>>()
    };
    let same = ["1 1 NONE Def.FILE", "2 1 NONE JSON.Generic", "3 1 NONE JSON.Generic"];
    assert_eq!(objects("tiny-theirs.sif"), [&same[..], &["4 1 NONE FS (Squashfs/*System/amd64)"]].concat());
    // One more: provenance.json.
    let ours = ["4 1 NONE JSON.Generic", "5 1 NONE FS (Squashfs/*System/amd64)"];
    assert_eq!(objects("tiny-ours.sif"), [&same[..], &ours].concat());
    let header = both.theirs(Who::Root, &["sif", "header", "tiny-ours.sif"]).ok().stdout;
    for line in [
        "Launch Script:        #!/usr/bin/env run-singularity",
        "Primary Architecture: amd64",
        "Descriptors Total:    48",
    ] {
        assert!(header.contains(line), "{line} in {header}");
    }
    let verified = both.theirs(Who::Root, &["verify", "tiny-ours.sif"]).fails_with(255);
    assert!(verified.stderr.contains("signature not found"), "{verified}");
    // It can sign what we wrote, and the signed file still runs everywhere.
    let dump = both.theirs(Who::Root, &["sif", "dump", "1", "tiny-ours.sif"]).ok();
    assert!(dump.stdout.starts_with("bootstrap: docker\nfrom: "), "{dump}");
}

/// A large image of real packages: hard links, capabilities, Perl and Ruby.
#[test]
fn a_cow_speaks_alike() {
    let registry = Registry::plain();
    images::push_lolcow(&registry, "lolcow");
    let apptainer = Apptainer::new();
    let siforge = Siforge::root();
    let sif = siforge.pull(&registry, "lolcow", "lolcow.sif");
    fs::copy(&sif, apptainer.here().join("lolcow.sif")).unwrap();
    let there = apptainer.there("lolcow.sif");
    let cow = ["/usr/games/cowsay", "same cow"];
    let said = siforge.run(&["exec", "lolcow.sif", cow[0], cow[1]]).ok();
    assert!(said.stdout.contains("< same cow >"), "{said}");
    for ran in [
        apptainer.root(&["apptainer", "-q", "exec", &there, cow[0], cow[1]]),
        apptainer.user(&["apptainer", "-q", "exec", &there, cow[0], cow[1]]),
    ] {
        assert_eq!(ran.ok().stdout, said.stdout);
    }
    let listed = apptainer.root(&["apptainer", "sif", "list", &there]).ok();
    assert!(listed.stdout.contains("FS (Squashfs/*System/amd64)"), "{listed}");
}
