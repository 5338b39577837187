//! The node agent, the real binary, on real loop devices and kernel mounts.

mod hostile;
pub(crate) mod site;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use siforge_agent_api::{Client, Error, MountRequest, Refusal, WarmRequest};
use siforge_store::Access;
use siforge_tests::run::run;
use siforge_tests::{User, wait_until};

use site::{DEADLINE, Site};

fn everyone() -> Access {
    Access { everyone: true, ..Access::default() }
}

fn mount(reference: &str) -> MountRequest {
    MountRequest { reference: reference.into(), ..MountRequest::default() }
}

fn warm(reference: &str, lease: &str) -> WarmRequest {
    WarmRequest { reference: reference.into(), lease: Some(lease.into()), budget_ms: None }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn fifty_clients_at_once_share_one_mount() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let agent = site.start(&[]);
    let barrier = Barrier::new(50);
    let digests: BTreeSet<String> = std::thread::scope(|scope| {
        let ask = || {
            let mut client = site.client();
            barrier.wait();
            let (reply, _mount) = client.mount(&mount("lab/tiny"), None).expect("mount");
            (reply.digest, site.loops(&digest))
        };
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().expect("client")).collect();
        assert!(answers.iter().all(|(_, loops)| *loops == 1));
        answers.into_iter().map(|(digest, _)| digest).collect()
    });
    assert_eq!(digests, BTreeSet::from([digest.to_string()]));
    assert_eq!((site.mounts(&digest), site.loops(&digest)), (1, 1));
    assert_eq!(site.leased(), [digest]);

    // What it has of its own: pages of its file, of which a debug build has many, are the page cache's.
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()));
    let status = status.expect("the agent's status");
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let own: u64 = own.and_then(|own| own.trim().strip_suffix(" kB")?.parse().ok()).expect("RssAnon");
    assert!(own <= 4 * 1024, "the agent has {own} kB after 50 clients");
}

#[test]
fn a_user_sees_what_root_owns_as_its_own() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let _agent = site.start(&[]);
    let user = User::ordinary();

    let mapped = site.ask(Some(user), "lab/tiny", &["idmap"]);
    assert_eq!(mapped["owner"], format!("{}:{}", user.uid, user.gid), "{mapped}");
    assert_eq!((&mapped["idmapped"], &mapped["content"]), (&true.into(), &"tiny".into()), "{mapped}");

    let plain = site.ask(Some(user), "sif://lab/tiny", &[]);
    assert_eq!((&plain["owner"], &plain["idmapped"]), (&"0:0".into(), &false.into()), "{plain}");
    let by_digest = site.ask(Some(user), &format!("lab/tiny@{digest}"), &[]);
    assert_eq!(by_digest["digest"], digest.to_string());

    let namespaced = site.ask(Some(user), "lab/tiny", &["idmap", "userns"]);
    assert_eq!(namespaced["groupsMapped"], true, "{namespaced}");
    let map = namespaced["gidMap"].as_str().expect("gid map").trim_start().to_owned();
    assert!(map.starts_with(&user.gid.to_string()), "{namespaced}");
    assert_eq!(site.loops(&digest), 1);
}

#[test]
fn access_rules_hold_and_near_names_are_named() {
    let site = Site::new();
    let user = User::ordinary();
    site.publish("lolcow", everyone());
    site.publish("private", Access { uids: vec![user.uid + 1], ..Access::default() });
    site.publish("secret", Access::default());
    site.publish("shared", Access { gids: vec![user.gid], ..Access::default() });
    let _agent = site.start(&["--default-namespace", "lab"]);
    let check = |reference: &str, user: Option<&User>, expected: Result<(), &str>| {
        let answer = site.ask(user, reference, &[]);
        match (answer["error"].as_str(), expected) {
            (None, Ok(())) => {}
            (Some(error), Err(expected)) => {
                assert!(error.contains(expected), "{reference}: {error}")
            }
            (_, expected) => panic!("{reference}: {expected:?}: {answer}"),
        }
    };
    let denied = format!("uid {} may not use the image lab/private", user.uid);
    check("lolcow", Some(user), Ok(()));
    check("lab/shared", Some(user), Ok(()));
    check("lab/private", Some(user), Err(&denied));
    check("lab/private", None, Ok(()));
    check("lab/lolcwo", Some(user), Err("no image lab/lolcwo in the store (did you mean lab/lolcow?)"));
    check("lab/secrets", None, Err("did you mean lab/secret?"));
    check("docker://lolcow", Some(user), Err("does not name an image of the store"));
    check("/etc/passwd", None, Err("does not name an image of the store"));
    check("../x", None, Err("does not name an image of the store"));
    check("LAB/x", None, Err("LAB/x"));
    let other = format!("lab/lolcow@sha256:{}", "0".repeat(64));
    check(&other, None, Err("lab/lolcow has no revision with digest sha256:000"));

    // A private name is not suggested to who may not have it.
    let answer = site.ask(Some(user), "lab/secrets", &[]);
    assert_eq!(answer["error"], "no image lab/secrets in the store");
}

#[test]
fn an_earlier_digest_is_had_by_its_name_until_the_name_is_removed() {
    let site = Site::new();
    let first = site.publish("app", everyone());
    std::fs::create_dir_all(site.path("tree/app")).expect("tree");
    std::fs::write(site.path("tree/app/second"), "x").expect("write");
    let second = site.publish("app", everyone());
    assert_ne!(first, second);
    let _agent = site.start(&[]);
    let mut client = site.client();
    assert_eq!(client.resolve("lab/app").expect("resolve").digest, second.to_string());
    let (reply, _mount) = client.mount(&mount(&format!("lab/app@{first}")), None).expect("mount the first");
    assert_eq!((reply.digest, reply.revision), (first.to_string(), 0));
    site.store.remove_ref("lab", "app", 0).expect("remove");
    let gone = refusal(client.mount(&mount(&format!("lab/app@{first}")), None));
    assert!(matches!(gone, Refusal::NotFound { .. }), "{gone:?}");
}

#[test]
fn kill_9_disturbs_nobody_and_the_next_agent_serves_on() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let agent = site.start(&[]);
    let mut holder = site.hold(Some(User::ordinary()), "lab/tiny");
    site.client().warm(&warm("lab/tiny", "slurm-9")).expect("warm");
    agent.kill9();
    assert_eq!(holder.read(), "tiny");
    assert!(site.socket().exists(), "kill -9 leaves a stale socket");

    let agent = site.start(&[]);
    assert_eq!((site.mounts(&digest), site.loops(&digest)), (1, 1));
    assert!(agent.log().contains("adopted=1"), "{}", agent.log());
    let status = site.status();
    assert_eq!(status["mounts"][0]["leases"][0], "slurm-9", "{status}");
    let (reply, _mount) = site.client().mount(&mount("lab/tiny"), None).expect("mount");
    assert_eq!(reply.digest, digest.to_string());
    assert_eq!((site.mounts(&digest), site.loops(&digest), site.leased()), (1, 1, vec![digest]));
    assert_eq!(holder.read(), "tiny");
}

#[test]
fn stale_mounts_are_cleaned_at_start() {
    let site = Site::new();
    let kept = site.publish("kept", everyone());
    let gone = site.publish("gone", everyone());
    let agent = site.start(&[]);
    let mut client = site.client();
    client.mount(&mount("lab/kept"), None).expect("mount");
    let mut holder = site.hold(None, "lab/gone");
    agent.kill9();
    // As garbage collection does; and a mount that is none of ours.
    let artifact = site.artifact(&gone);
    std::fs::rename(&artifact, site.path("store/trash").join(format!("{}.sif", gone.hex()))).expect("rename");
    let foreign = site.path("state/mounts").join("f".repeat(64));
    std::fs::create_dir(&foreign).expect("create");
    run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&foreign)).ok();

    let agent = site.start(&[]);
    assert_eq!((site.mounts(&kept), site.mounts(&gone)), (1, 0), "{}", agent.log());
    assert!(!foreign.exists(), "{}", agent.log());
    assert_eq!(holder.read(), "gone");
    wait_until(DEADLINE, "the lease covers what a launch still uses", || site.leased().contains(&gone));
    drop(holder);
    wait_until(DEADLINE, "the lease is given up", || site.leased() == [kept]);
}

#[test]
fn damage_is_refused_with_the_reason() {
    let site = Site::new();
    for name in ["flipped", "cut", "missing"] {
        site.publish(name, everyone());
    }
    let digest = |name: &str| site.store.read_ref("lab", name).expect("read").expect("ref").digest;
    let open =
        |name: &str| std::fs::File::options().read(true).write(true).open(site.artifact(&digest(name))).expect("open");
    let flipped = open("flipped");
    let mut byte = [0];
    flipped.read_exact_at(&mut byte, 100_000).expect("read a byte");
    flipped.write_all_at(&[!byte[0]], 100_000).expect("damage a byte");
    let cut = open("cut");
    cut.set_len(cut.metadata().expect("stat").len() / 2).expect("truncate");
    std::fs::remove_file(site.artifact(&digest("missing"))).expect("remove");

    let check = |reference: &str, expected: &str| {
        let refused = refusal(site.client().mount(&mount(reference), None));
        assert!(matches!(refused, Refusal::Damaged { .. }), "{refused:?}");
        assert!(refused.to_string().contains(expected), "{refused}");
    };
    {
        let _agent = site.start(&["--integrity", "hash"]);
        for _ in 0..2 {
            check("lab/flipped", "is damaged: its bytes hash to sha256:");
            check("lab/cut", "truncated SIF");
        }
        let missing = refusal(site.client().mount(&mount("lab/missing"), None));
        assert!(missing.to_string().contains("is not in the store"), "{missing}");
        let refused = refusal(site.client().warm(&warm("lab/flipped", "slurm-1")));
        assert!(matches!(refused, Refusal::Damaged { .. }), "{refused:?}");
        // Nothing is left: no device, no mount, no lease.
        assert_eq!((site.loops(&digest("flipped")), site.mounts(&digest("flipped"))), (0, 0));
        assert_eq!(site.status()["leases"].as_array().map(Vec::len), Some(0));
        wait_until(DEADLINE, "nothing is leased", || site.leased().is_empty());
    }
    let _agent = site.start(&["--integrity", "store"]);
    check("lab/cut", "truncated SIF");
    site.client().mount(&mount("lab/flipped"), None).expect("mode store trusts the store's permissions");
}

#[test]
fn slurm_hooks_always_exit_0() {
    let site = Site::new();
    site.publish("tiny", everyone());
    let job = ("SLURM_JOB_ID", "42");
    let image = ("SPANK_SIF_IMAGE", "lab/tiny");
    let check = |hook: &str, environment: &[(&str, &str)], expected: &str| {
        let finished = site.slurm(hook, environment).fails_with(0);
        assert!(finished.stderr.contains(expected), "{expected}: {finished}");
    };
    check("prolog", &[job, image], "connect to the agent");
    check("epilog", &[job], "connect to the agent");
    check("prolog", &[], "SLURM_JOB_ID is not a job id");
    check("prolog", &[("SLURM_JOB_ID", "x"), image], "SLURM_JOB_ID is not a job id");
    check("prolog", &[job, ("SIFORGE_AGENT_CONFIG", "/nonexistent")], "read configuration /nonexistent");
    check("prolog", &[job, image, ("SIFORGE_AGENT_LOG_FORMAT", "??")], "setting log-format");
    run(site.command(&["slurm", "prolog", "--no-such-flag"]).env("SLURM_JOB_ID", "1")).fails_with(0);
    let down = run(&mut site.command(&["slurm", "check"])).fails_with(1);
    assert!(down.stderr.contains("connect to the agent"), "{down}");

    let agent = site.start(&[]);
    check("prolog", &[job, ("SPANK_SIF_IMAGE", "lab/tinny")], "did you mean lab/tiny?");
    check("prolog", &[job, ("SPANK_SIF_IMAGE", "docker://x/y")], "does not name an image of the store");
    check("prolog", &[job], "the job names no image");
    check("prolog", &[job, ("SLURM_JOB_COMMENT", "a; sif=lab/tiny")], "lab/tiny is mounted");
    let status = site.status();
    assert_eq!(status["mounts"][0]["leases"][0], "slurm-42", "{status}");
    check("epilog", &[job], "released lease slurm-42");
    assert_eq!(site.status()["leases"].as_array().map(Vec::len), Some(0));
    run(&mut site.command(&["slurm", "check"])).ok();
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn a_hook_does_not_wait_for_an_agent_that_hangs() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("state")).expect("create");
    let silent = UnixListener::bind(site.socket()).expect("bind");
    // What it takes to build the program does not count.
    let mut hook = site.command(&["slurm", "epilog"]);
    let begun = Instant::now();
    run(hook.env("SLURM_JOB_ID", "1")).fails_with(0);
    assert!(begun.elapsed() < Duration::from_secs(15), "took {:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn idle_images_are_let_go_and_leased_ones_are_not() {
    let site = Site::new();
    let idle = site.publish("idle", everyone());
    let leased = site.publish("leased", everyone());
    let held = site.publish("held", everyone());
    let _agent = site.start(&["--linger", "1"]);
    let mut client = site.client();
    client.warm(&warm("lab/leased", "slurm-1")).expect("warm");
    client.mount(&mount("lab/idle"), None).expect("mount");
    let mut holder = site.hold(None, "lab/held");
    assert_eq!(site.leased().len(), 3);

    site.wait_loops(&idle, 0);
    wait_until(DEADLINE, "the held image is unmounted", || site.mounts(&held) == 0);
    // Its loop device lives as long as the holder, and the lease as long as the device.
    assert_eq!((site.loops(&held), holder.read()), (1, "held".to_owned()));
    wait_until(DEADLINE, "the lease names what is in use", || {
        site.leased() == BTreeSet::from([leased, held]).into_iter().collect::<Vec<_>>()
    });
    assert_eq!(site.mounts(&leased), 1);

    // Mounted again while a copy lives: the same device, the same superblock.
    let again = site.hold(None, "lab/held");
    assert_eq!((site.mounts(&held), site.loops(&held)), (1, 1));
    drop((holder, again));
    site.wait_loops(&held, 0);

    client.release("slurm-1").expect("release");
    client.release("slurm-1").expect("release again");
    site.wait_loops(&leased, 0);
    wait_until(DEADLINE, "nothing is leased", || site.leased().is_empty());
}

#[test]
fn leases_of_others_are_not_touched() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let _agent = site.start(&["--linger", "1"]);
    site.ask(Some(User::ordinary()), "lab/tiny", &["lease=slurm-5"]);
    let mut client = site.client();
    assert_eq!(client.status().expect("status").leases, ["slurm-5"]);
    assert_eq!(site.mounts(&digest), 1);
    for name in ["a b", "", "../x"] {
        let refused = refusal(client.release(name));
        assert!(matches!(refused, Refusal::InvalidParameter { .. }), "{name:?}: {refused:?}");
    }
    // root ends a job's leases, whoever took them.
    client.release("slurm-5").expect("release");
    site.wait_loops(&digest, 0);
}

#[test]
fn a_full_node_says_so_and_makes_room_when_it_can() {
    let site = Site::new();
    let first = site.publish("first", everyone());
    site.publish("second", everyone());
    let _agent = site.start(&["--max-mounts", "1"]);
    let mut client = site.client();
    client.warm(&warm("lab/first", "a")).expect("warm");
    let full = refusal(client.mount(&mount("lab/second"), None));
    assert!(matches!(&full, Refusal::Busy { message } if message.contains("max-mounts")), "{full:?}");
    client.release("a").expect("release");
    client.mount(&mount("lab/second"), None).expect("mount after room was made");
    assert_eq!(site.mounts(&first), 0);
}

#[test]
fn sigterm_leaves_the_mounts_and_cleanup_takes_them() {
    let site = Site::new();
    let digest = site.publish("tiny", everyone());
    let agent = site.start(&[]);
    site.client().mount(&mount("lab/tiny"), None).expect("mount");

    let second = run(&mut site.command(&["serve"])).fails_with(1);
    assert!(second.stderr.contains("another agent runs on the state directory"), "{second}");
    let early = run(&mut site.command(&["cleanup"])).fails_with(1);
    assert!(early.stderr.contains("another agent runs"), "{early}");

    assert_eq!(agent.terminate(), 0, "{}", agent.log());
    assert_eq!((site.mounts(&digest), site.loops(&digest), site.socket().exists()), (1, 1, false));
    run(&mut site.command(&["cleanup"])).ok();
    site.wait_loops(&digest, 0);
    run(&mut site.command(&["cleanup"])).ok();

    let agent = site.start(&["--unmount-on-exit"]);
    site.client().mount(&mount("lab/tiny"), None).expect("mount");
    agent.signal(Signal::INT);
    wait_until(DEADLINE, "the agent ends", || agent.exit_code() == Some(0));
    site.wait_loops(&digest, 0);
    assert!(
        !std::fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .contains(&*site.path("state").to_string_lossy())
    );
}

#[test]
fn broken_messages_cost_their_sender_the_connection_and_nobody_else() {
    let site = Site::new();
    site.publish("tiny", everyone());
    let agent = site.start(&[]);
    let long = vec![b'x'; 100 * 1024];
    let cases: [&[u8]; 4] = [b"no json\0", b"{}\0", &long, b"{\"method\":5}\0"];
    for bytes in cases {
        let mut stream = UnixStream::connect(site.socket()).expect("connect");
        // The agent may close before all is written.
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    let mut stream = UnixStream::connect(site.socket()).expect("connect");
    stream.write_all(b"{\"method\":\"dev.siforge.Agent.Explode\"}\0").expect("write");
    let mut answer = [0; 256];
    let n = stream.read(&mut answer).expect("read");
    assert!(String::from_utf8_lossy(&answer[..n]).contains("org.varlink.service.MethodNotFound"));
    // A namespace that was announced and did not come.
    let stream_request = b"{\"method\":\"dev.siforge.Agent.Mount\",\"parameters\":{\"reference\":\"lab/tiny\",\"user_namespace\":true}}\0";
    stream.write_all(stream_request).expect("write");
    let n = stream.read(&mut answer).expect("read");
    assert!(String::from_utf8_lossy(&answer[..n]).contains("org.varlink.service.InvalidParameter"));
    assert!(agent.is_running());
    Client::connect(&site.socket()).and_then(|mut client| client.mount(&mount("lab/tiny"), None)).expect("mount");
}
