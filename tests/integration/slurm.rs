//! The SPANK plugin in a real Slurm, with the real agent on a store.

mod callbacks;
mod place;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use siforge_tests::{User, run};

use place::Place;

#[test]
fn a_step_runs_in_the_image() {
    let place = Place::start();
    let check = |words: &[&str], code: i32, expected: &str| {
        let finished = place.srun(words).fails_with(code);
        assert!(finished.output().contains(expected), "{expected:?}: {finished}");
    };
    let tiny = "--sif=lab/tiny";
    check(&["--sif=none", "cat", "/etc/image"], 1, "No such file");
    check(&[tiny, "cat", "/etc/image"], 0, "tiny");
    check(&["--sif=tiny", "cowsay", "a  b"], 0, "moo a  b");
    check(&["--sif=sif://lab/tiny", "tail"], 0, "the image's tail");
    let by_digest = format!("--sif=tiny@{}", place.digest);
    check(&[&by_digest, "cowsay"], 0, "moo");
    check(&[tiny, "sh", "-c", "echo $WHO"], 0, "image\n");
    check(&[tiny, "pwd"], 0, &place.slurm.work_dir().display().to_string());
    check(&[tiny, "sh", "-c", "echo to stderr >&2; exit 7"], 7, "to stderr");
    check(&[tiny, "sh", "-c", "kill -9 $$"], 137, "Killed");
    check(&[tiny, "no-such-program"], 2, "No such file");
    check(&[tiny, "/etc/image"], 13, "Permission denied");
    check(
        &[tiny, "sh", "-c", "echo $APPTAINER_NAME $SINGULARITY_CONTAINER"],
        0,
        &format!("tiny {}", place.site.artifact(&place.digest).display()),
    );

    let own = User::ordinary().tempdir();
    fs::write(own.path().join("data"), "bound\n").expect("write");
    let bind = format!("--sif-bind={}:/mnt/here:ro", own.path().display());
    check(&[tiny, &bind, "cat", "/mnt/here/data"], 0, "bound");
    check(&[tiny, &bind, "sh", "-c", "echo x >/mnt/here/data"], 1, "Read-only file system");
    check(&[tiny, "sh", "-c", "echo x >/etc/image"], 1, "Read-only file system");

    let check = |variables: &[(&str, &str)], words: &[&str], expected: &str| {
        let finished = place.srun_with(variables, words).ok();
        assert_eq!(finished.stdout, expected, "{finished}");
    };
    let image = ("SIFORGE_SLURM_SIF", "lab/tiny");
    let who = ["sh", "-c", "echo $WHO $MINE $OTHER"];
    check(&[image], &who, "image\n");
    check(&[image], &[&["--sif=none"], &who[..]].concat(), "\n");
    let mine = [image, ("MINE", "1"), ("WHO", "host"), ("SINGULARITYENV_OTHER", "2")];
    check(&mine, &who, "image 1 2\n");
    check(
        &[("MINE", "1")],
        &["--sif=lab/scripted", "sh", "-c", "echo $GREETING $MINE $SLURM_PROCID"],
        "hello from tiny 1 0\n",
    );
    // Below /tmp, which is the host's: so it is there inside, too.
    let prolog = own.path().join("prolog");
    fs::write(&prolog, "#!/bin/sh\necho export FROM=$WHO\n").expect("write");
    fs::set_permissions(&prolog, fs::Permissions::from_mode(0o755)).expect("chmod");
    let prolog = format!("--task-prolog={}", prolog.display());
    check(&[], &["--sif=lab/tiny", &prolog, "sh", "-c", "echo $FROM"], "image\n");
    let help = place.srun(&["--help"]).ok();
    assert!(help.stdout.contains("--sif-bind="), "{help}");
    place.nodes_are_well();
}

#[test]
fn ranks_share_one_mount_namespace_and_one_mount() {
    let place = Place::start();
    let step = ["-N1", "-n4", "--overcommit", "--sif=lab/tiny"];
    let show = ["sh", "-c", "readlink /proc/self/ns/mnt; readlink /proc/self/ns/user"];
    let finished = place.srun(&[&step[..], &show].concat()).ok();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let different: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!((lines.len(), different.len()), (8, 2), "{finished}");
    let host = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).expect("read a namespace");
        link.display().to_string()
    };
    assert!(!different.contains(host("mnt").as_str()), "{finished}");
    assert!(different.contains(host("user").as_str()), "{finished}");
    assert_eq!(place.site.loops(&place.digest), 1);

    // One message for all of them, and the same code.
    let step = ["-N1", "-n4", "--overcommit", "--sif=lab/tinny", "true"];
    let finished = place.srun(&step).fails_with(66);
    assert_eq!(finished.stderr.matches("did you mean").count(), 1, "{finished}");
    // A rank's own failure is its own.
    let step = ["-N2", "-n4", "--overcommit", "--sif=lab/tiny"];
    let fail = ["sh", "-c", "test $SLURM_PROCID != 3 || exit 9; echo ran"];
    let finished = place.srun(&[&step[..], &fail].concat()).fails_with(9);
    assert_eq!(finished.stdout, "ran\n".repeat(3), "{finished}");
    place.nodes_are_well();
}

#[test]
fn a_task_is_the_user_and_no_more() {
    // Its own account: the group must not surprise other tests.
    let user = User::with_uid(1017);
    run(Command::new("groupadd").args(["-f", "siforge-test-group"])).ok();
    run(Command::new("usermod").args(["-aG", "siforge-test-group", &user.name])).ok();
    let place = Place::start();
    let inside = |words: &[&str]| place.slurm.srun_as(&user, &[&["--sif=lab/tiny"], words].concat());

    let groups =
        |text: &str| -> BTreeSet<u32> { text.split_whitespace().map(|gid| gid.parse().expect("gid")).collect() };
    let host = run(Command::new("id").args(["-G", &user.name])).ok().stdout;
    assert_eq!(groups(&host).len(), 2, "{host}");
    assert_eq!(groups(&inside(&["id", "-G"]).ok().stdout), groups(&host));
    assert_eq!(inside(&["id", "-un"]).ok().stdout.trim(), user.name);

    let status = inside(&["cat", "/proc/self/status"]).ok().stdout;
    for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let expected = format!("{line}:\t0000000000000000\n");
        assert!(status.contains(&expected), "{expected}{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", user.uid)), "{status}");

    // The image's own permissions hold: what root alone may read stays closed.
    let secret = inside(&["cat", "/etc/secret"]).fails_with(1);
    assert!(secret.stderr.contains("Permission denied"), "{secret}");
    let owner = inside(&["stat", "-c", "%u:%g %a", "/etc/secret"]).ok();
    assert_eq!(owner.stdout, "0:0 600\n", "{owner}");
    // And so do the host's: a bind is opened with the user's rights.
    let closed = tempfile::tempdir().expect("make a folder");
    fs::create_dir(closed.path().join("below")).expect("create");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let bind = format!("--sif-bind={}/below:/mnt", closed.path().display());
    let refused = inside(&[&bind, "ls", "/mnt"]).fails_with(64);
    assert!(refused.stderr.contains("no such file"), "{refused}");
    // root has no more in an image than anybody else.
    let root = place.slurm.srun(&["--sif=lab/tiny", "grep", "CapEff", "/proc/self/status"]).ok();
    assert_eq!(root.stdout, "CapEff:\t0000000000000000\n", "{root}");
    place.nodes_are_well();
}

#[test]
fn what_goes_wrong_fails_the_step_and_never_the_node() {
    let place = Place::start();
    let check = |words: &[&str], code: i32, expected: &str| {
        let finished = place.srun(words).fails_with(code);
        assert!(finished.stderr.contains(expected), "{expected:?}: {finished}");
        assert_eq!(finished.stdout, "", "{finished}");
    };
    let echo = ["echo", "payload"];
    check(
        &[&["--sif=lab/tinny"], &echo[..]].concat(),
        66,
        "siforge: --sif=sif://lab/tinny: no image lab/tinny in the store (did you mean lab/tiny?)",
    );
    check(
        &[&["--sif=lab/private"], &echo[..]].concat(),
        77,
        &format!("uid {} may not use the image lab/private", User::ordinary().uid),
    );
    let absent = format!("--sif=lab/tiny@sha256:{}", "0".repeat(64));
    check(&[&[absent.as_str()], &echo[..]].concat(), 66, "has no revision with digest");
    check(
        &[&["--sif=lab/tiny", "--sif-bind=/no/such:/mnt"], &echo[..]].concat(),
        64,
        "bind /no/such: no such file or directory on the host",
    );
    // The client refuses what it can see.
    for image in ["/x.sif", "docker://alpine", "Lab/x", ""] {
        let option = format!("--sif={image}");
        check(&[&[option.as_str()], &echo[..]].concat(), 255, "not an image of the store");
    }
    check(&[&["--sif-bind=/a:b"], &echo[..]].concat(), 255, "is not absolute");
    // A misspelt variable can only be refused on the node.
    let variable = [("SIFORGE_SLURM_SIF", "docker://alpine")];
    let finished = place.srun_with(&variable, &echo).fails_with(64);
    assert!(finished.stderr.contains("not an image of the store"), "{finished}");
    assert_eq!(finished.stdout, "", "{finished}");
    place.nodes_are_well();

    // Nobody listens any more.
    let Place { slurm, agent, site, .. } = place;
    assert_eq!(agent.terminate(), 0);
    let step = ["-n2", "-N1", "--overcommit", "--sif=lab/tiny", "echo", "payload"];
    let down = slurm.srun_as(User::ordinary(), &step).fails_with(75);
    assert!(down.stderr.contains("is siforge-agent running on this node?"), "{down}");
    assert_eq!(down.stdout, "", "{down}");
    let job = slurm.sbatch(User::ordinary(), &["--sif=lab/tiny", "--sif-batch"], "#!/bin/sh\necho payload\n");
    assert_eq!((job.state.as_str(), job.exit_code.as_str()), ("FAILED", "75:0"), "{job:?}");
    assert!(job.output.contains("is siforge-agent running") && !job.output.contains("payload"), "{job:?}");
    // Steps without an image do not care.
    slurm.srun_as(User::ordinary(), &echo).ok();
    slurm.wait_idle(crate::agent::site::DEADLINE);
    drop((slurm, agent, site));
}

#[test]
fn batch_jobs() {
    let place = Place::start();
    let check = |words: &[&str], script: &str, expected: &str| {
        let job = place.sbatch(words, &format!("#!/bin/sh\n{script}\n"));
        // On a busy machine the step before is not gone yet, and srun says that it waits.
        let waits = |line: &&str| line.starts_with("srun: Job ") || line.starts_with("srun: Step created ");
        let output: String = job.output.split_inclusive('\n').filter(|line| !waits(line)).collect();
        assert_eq!((job.state.as_str(), output.as_str()), ("COMPLETED", expected), "{job:?}");
    };
    let steps = "echo script:$WHO\nsrun sh -c 'echo step:$WHO'\nsrun --sif=none sh -c 'echo host:$WHO'\nsrun --sif=scripted sh -c 'echo other:$GREETING'";
    check(&["--sif=lab/tiny"], steps, "script:\nstep:image\nhost:\nother:hello from tiny\n");
    check(&["--sif=lab/tiny", "--sif-batch"], "echo script:$WHO; cat /etc/image", "script:image\ntiny\n");
    check(&[], "srun --sif=lab/tiny cowsay; srun sh -c 'echo $WHO'", "moo \n\n");
    // The script goes on after a step that could not have its image.
    check(&["--sif=lab/tinny"], "srun true 2>/dev/null; echo $?", "66\n");

    let mut salloc = place.slurm.command_as(User::ordinary(), "salloc");
    let allocated = run(salloc.args(["--sif=lab/tiny", "sh", "-c", "echo $WHO; srun cowsay"])).ok();
    assert_eq!(allocated.stdout, "\nmoo \n", "{allocated}");

    let hooks = || fs::read_to_string(place.site.path("hooks.log")).unwrap_or_default();
    assert!(hooks().contains("prolog: sif://lab/tiny is mounted"), "{}", hooks());
    // Whatever the prolog is given, the node and the job stay well.
    for comment in ["sif=docker://x y", "sif=lab/absent", "sif=;;\u{1}\u{fffd}", "sif="] {
        check(&["--comment", comment], "echo fine", "fine\n");
    }
    place.nodes_are_well();
}
