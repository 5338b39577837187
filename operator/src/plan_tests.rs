//! A settled base and one change per case.

use super::*;
use siforge_crds::conditions::Reason;
use siforge_store::Namespaces;

const START: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn found() -> Found {
    Found { reference: "docker://r/lab/cow:1".to_owned(), manifest: digest(1), key: digest(2), bytes: 1000, at: at(0) }
}

fn sif() -> Sif {
    Sif { digest: digest(3), size: 5000 }
}

/// Resolved 10 s ago, published as asked for, to be resolved again after 60 s.
fn base() -> Facts {
    let ask = Ask { generation: 1, reconcile_at: None, inputs: vec![] };
    Facts {
        ask: ask.clone(),
        worked_for: ask,
        work: Work::Found(found()),
        interval: Some(Duration::from_secs(60)),
        access: Access::default(),
        published: Some(Published {
            reference: found().reference,
            manifest: found().manifest,
            key: found().key,
            sif: sif(),
            access: Access::default(),
        }),
        was_ready: true,
        seed: 0,
        now: at(10),
    }
}

fn failure(next: Option<i64>) -> Work {
    Work::Failed {
        at: at(0),
        stage: Stage::Resolve,
        failure: Failure::transient(Reason::RegistryUnavailable, "down"),
        next: next.map(at),
    }
}

fn kind(outlook: &Outlook) -> String {
    match outlook {
        Outlook::Settled(_) => "settled".to_owned(),
        Outlook::Working { progress, .. } => format!("{:?}", progress.phase),
        Outlook::Failed { .. } => "failed".to_owned(),
        Outlook::Suspended => "suspended".to_owned(),
    }
}

fn check(name: &str, change: impl FnOnce(&mut Facts), steps: &[Step], outlook: &str, wake: Option<u64>) {
    let mut facts = base();
    change(&mut facts);
    let plan = plan(&facts);
    assert_eq!(
        (plan.steps.as_slice(), kind(&plan.outlook).as_str(), plan.wake_after.map(|wake| wake.as_secs())),
        (steps, outlook, wake),
        "{name}"
    );
}

#[test]
fn settled_until_the_interval_is_over() {
    use Step::Resolve;
    check("settled", |_| {}, &[], "settled", Some(50));
    check("interval over", |f| f.now = at(60), &[Resolve], "settled", None);
    check("interval spread", |f| f.seed = 1023, &[], "settled", Some(55));
    check("resolved once", |f| f.interval = None, &[], "settled", None);
}

#[test]
fn resolved_anew_at_first_sight_and_when_the_ask_changed() {
    use Step::Resolve;
    check(
        "first sight",
        |f| (f.work, f.published, f.was_ready) = (Work::Idle, None, false),
        &[Resolve],
        "Resolving",
        None,
    );
    check("restart", |f| f.work = Work::Idle, &[Resolve], "Resolving", None);
    check("restart, resolved once", |f| (f.work, f.interval) = (Work::Idle, None), &[], "settled", None);
    check(
        "restart, resolved once, artifact gone",
        |f| (f.work, f.interval, f.published) = (Work::Idle, None, None),
        &[Resolve],
        "Resolving",
        None,
    );
    check(
        "restart, resolved once, other access",
        |f| (f.work, f.interval, f.access.everyone) = (Work::Idle, None, true),
        &[Resolve],
        "Resolving",
        None,
    );
    check("new generation", |f| f.ask.generation = 2, &[Resolve], "Resolving", None);
    check("asked for by annotation", |f| f.ask.reconcile_at = Some("x".to_owned()), &[Resolve], "Resolving", None);
    check("other secret", |f| f.ask.inputs = vec!["uid/2".to_owned()], &[Resolve], "Resolving", None);
    check("resolving", |f| f.work = Work::Resolving, &[], "Resolving", None);
}

#[test]
fn built_once_found_and_not_published() {
    use Step::Build;
    check("never built", |f| f.published = None, &[Build], "Queued", None);
    check("tag moved or recipe changed", |f| f.published.as_mut().unwrap().key = digest(9), &[Build], "Queued", None);
    check("queued", |f| f.work = Work::Queued(found()), &[], "Queued", None);
    let progress =
        Progress { phase: BuildPhase::Building, bytes_done: 1, bytes_total: 2, percent: 50, started_at: at(1) };
    check("building", |f| f.work = Work::Building(found(), progress), &[], "Building", None);
}

#[test]
fn the_ref_follows_what_was_built_and_who_may_launch() {
    use Step::{Publish, Resolve};
    check(
        "built",
        |f| (f.work, f.published) = (Work::Built(found(), sif()), None),
        &[Publish(found(), sif())],
        "settled",
        Some(50),
    );
    check("built and published", |f| f.work = Work::Built(found(), sif()), &[], "settled", Some(50));
    check(
        "built, published, interval over",
        |f| (f.work, f.now) = (Work::Built(found(), sif()), at(61)),
        &[Resolve],
        "settled",
        None,
    );
    check("other access", |f| f.access.namespaces = Namespaces::All, &[Publish(found(), sif())], "settled", Some(50));
    check(
        "other tag of the same manifest",
        |f| f.published.as_mut().unwrap().reference = "docker://r/lab/cow:2".to_owned(),
        &[Publish(found(), sif())],
        "settled",
        Some(50),
    );
}

#[test]
fn failures_come_back_at_their_time() {
    check("transient", |f| f.work = failure(Some(30)), &[], "failed", Some(20));
    check("transient, due", |f| f.work = failure(Some(10)), &[Step::Resolve], "failed", None);
    check("stalled", |f| f.work = failure(None), &[], "failed", Some(50));
    check("stalled, interval over", |f| (f.work, f.now) = (failure(None), at(61)), &[Step::Resolve], "failed", None);
    check(
        "stalled, resolved once",
        |f| (f.work, f.interval, f.now) = (failure(None), None, at(1_000_000)),
        &[],
        "failed",
        None,
    );
}
