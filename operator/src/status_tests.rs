//! Each case: a status as it was, an outlook, and the conditions that follow.

use super::*;
use siforge_reference::Digest;
use siforge_store::{Access, Provenance, RefContent};

const START: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn found() -> Found {
    Found {
        reference: "docker://r/lab/cow:1".to_owned(),
        manifest: digest(1),
        key: digest(2),
        bytes: 1 << 20,
        at: at(0),
    }
}

fn stored() -> Stored {
    let content = RefContent {
        namespace: "lab".to_owned(),
        name: "cow".to_owned(),
        digest: digest(3),
        size: 5 << 20,
        platform: "linux/amd64".to_owned(),
        source: Provenance {
            reference: found().reference,
            digest: digest(1),
            recipe: digest(2),
            builder_version: "0".to_owned(),
        },
        access: Access::default(),
        published_at: START,
    };
    let current = Ref { revision: 7, generation: 1, content };
    Stored { current: Some(current.clone()), artifact: true, history: vec![current] }
}

struct Case {
    previous: SingularityImageStatus,
    generation: i64,
    reconcile_at: Option<&'static str>,
    outlook: Outlook,
    stored: Stored,
    now: i64,
}

impl Case {
    fn first(outlook: Outlook) -> Self {
        Self {
            previous: SingularityImageStatus { observed_generation: Some(-1), ..Default::default() },
            generation: 1,
            reconcile_at: None,
            outlook,
            stored: Stored::default(),
            now: 100,
        }
    }

    /// Generation 1 was published.
    fn after_publication(outlook: Outlook) -> Self {
        let previous = Self { stored: stored(), ..Self::first(Outlook::Settled(Some(found()))) }.status();
        Self { previous, stored: stored(), now: 200, ..Self::first(outlook) }
    }

    fn status(&self) -> SingularityImageStatus {
        project(&Input {
            previous: &self.previous,
            generation: self.generation,
            reconcile_at: self.reconcile_at,
            outlook: &self.outlook,
            stored: &self.stored,
            compression: Some(Compression::Zstd),
            history: 2,
            store_root: Path::new("/store"),
            now: at(self.now),
        })
    }

    /// `Type=Status Reason`, in order; lower-case letters after `~` when the message must hold them.
    fn check(&self, name: &str, expect: &[&str]) {
        let status = self.status();
        let have: Vec<_> = status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect();
        assert_eq!(have, expect, "{name}");
        assert_eq!(status.observed_generation, Some(self.generation), "{name}");
        let both = ["Reconciling", "Stalled"].iter().all(|kind| find(&status, kind).is_some());
        assert!(!both, "{name}: Reconciling and Stalled together");
    }
}

fn working(phase: BuildPhase, percent: u8, found: Option<Found>) -> Outlook {
    Outlook::Working {
        found,
        progress: Progress {
            phase,
            bytes_done: u64::from(percent) << 10,
            bytes_total: 100 << 10,
            percent,
            started_at: at(5),
        },
    }
}

fn failed(stage: Stage, failure: Failure, next: Option<i64>) -> Outlook {
    Outlook::Failed { stage, failure, next: next.map(at) }
}

fn down() -> Outlook {
    failed(
        Stage::Resolve,
        Failure::transient(Reason::RegistryUnavailable, "resolving r/lab/cow:1: connection refused"),
        Some(130),
    )
}

fn unknown_tag() -> Outlook {
    failed(Stage::Resolve, Failure::stalled(Reason::NotFound, "manifest unknown"), None)
}

const PUBLISHED: [&str; 4] =
    ["Ready=True Succeeded", "SourceResolved=True Succeeded", "Built=True Succeeded", "Published=True Succeeded"];

#[test]
fn the_way_of_a_new_object() {
    Case::first(working(BuildPhase::Resolving, 0, None))
        .check("resolving", &["Ready=Unknown Resolving", "Reconciling=True Resolving"]);
    Case::first(working(BuildPhase::Queued, 0, Some(found()))).check(
        "queued",
        &["Ready=Unknown Queued", "Reconciling=True Queued", "SourceResolved=True Succeeded", "Built=False Queued"],
    );
    Case::first(working(BuildPhase::Building, 40, Some(found()))).check(
        "building",
        &[
            "Ready=Unknown Building",
            "Reconciling=True Building",
            "SourceResolved=True Succeeded",
            "Built=False Building",
        ],
    );
    Case { stored: stored(), ..Case::first(Outlook::Settled(Some(found()))) }.check("published", &PUBLISHED);
}

#[test]
fn failures_before_publication() {
    Case::first(failed(Stage::Inputs, Failure::stalled(Reason::Unsupported, "x"), None))
        .check("unsupported", &["Ready=False Unsupported", "Stalled=True Unsupported"]);
    Case::first(unknown_tag())
        .check("unknown tag", &["Ready=False NotFound", "Stalled=True NotFound", "SourceResolved=False NotFound"]);
    Case::first(down()).check(
        "registry down",
        &[
            "Ready=Unknown RegistryUnavailable",
            "Reconciling=True RegistryUnavailable",
            "SourceResolved=False RegistryUnavailable",
        ],
    );
    Case::first(failed(Stage::Inputs, Failure::waiting(Reason::SecretNotFound, "x"), None))
        .check("secret missing", &["Ready=Unknown SecretNotFound", "Reconciling=True SecretNotFound"]);
    Case::first(failed(Stage::Build, Failure::stalled(Reason::BuildFailed, "x"), None))
        .check("bomb", &["Ready=False BuildFailed", "Stalled=True BuildFailed", "Built=False BuildFailed"]);
    Case::first(Outlook::Suspended).check("suspended", &["Ready=Unknown Suspended"]);
}

#[test]
fn what_was_published_stays_ready() {
    Case::after_publication(Outlook::Settled(Some(found()))).check("same", &PUBLISHED);
    let rebuild =
        ["Ready=True Succeeded", "SourceResolved=True Succeeded", "Built=False Building", "Published=True Succeeded"];
    Case::after_publication(working(BuildPhase::Building, 40, Some(found()))).check("moved tag", &rebuild);
    let unreachable = [
        "Ready=True Succeeded",
        "SourceResolved=False RegistryUnavailable",
        "Built=True Succeeded",
        "Published=True Succeeded",
    ];
    Case::after_publication(down()).check("registry down", &unreachable);
    Case::after_publication(Outlook::Suspended).check("suspended", &PUBLISHED);
    let gone = [
        "Ready=False NotFound",
        "Stalled=True NotFound",
        "SourceResolved=False NotFound",
        "Built=True Succeeded",
        "Published=True Succeeded",
    ];
    Case::after_publication(unknown_tag()).check("tag deleted", &gone);
}

#[test]
fn a_new_generation_is_unknown_until_it_is_published() {
    let resolving = [
        "Ready=Unknown Resolving",
        "Reconciling=True Resolving",
        "SourceResolved=True Succeeded",
        "Built=True Succeeded",
        "Published=True Succeeded",
    ];
    let case = Case { generation: 2, ..Case::after_publication(working(BuildPhase::Resolving, 0, None)) };
    case.check("new generation", &resolving);
    let status = case.status();
    assert_eq!(
        find(&status, "Published").unwrap().observed_generation,
        Some(1),
        "what is not spoken of keeps its generation"
    );
    assert_eq!(status.artifacts.len(), 1, "the artifact stays");
    let lost = [
        "Ready=Unknown Resolving",
        "Reconciling=True Resolving",
        "SourceResolved=True Succeeded",
        "Built=True Succeeded",
        "Published=True Succeeded",
    ];
    Case { stored: Stored::default(), ..Case::after_publication(working(BuildPhase::Resolving, 0, None)) }
        .check("the ref is gone", &lost);
}

#[test]
fn columns_artifacts_and_history() {
    let status = Case::after_publication(Outlook::Settled(Some(found()))).status();
    assert_eq!(status.digest.as_deref(), Some("sha256:030303030303"));
    assert_eq!(status.size.as_deref(), Some("5.0 MiB"));
    assert_eq!(find(&status, "Ready").unwrap().message, "published sha256:030303030303 (5.0 MiB) as revision 7");
    let artifact = &status.artifacts[0];
    assert_eq!((artifact.revision, artifact.size, artifact.compression), (7, 5 << 20, Some(Compression::Zstd)));
    assert!(artifact.path.starts_with("sif/sha256/03/"), "{}", artifact.path);
    assert_eq!(status.history.len(), 1);
    assert_eq!(status.source.unwrap().digest, digest(1).to_string());
    assert_eq!(status.build, None);
}

#[test]
fn next_attempt_and_progress() {
    let build = Case::first(down()).status().build.unwrap();
    assert_eq!((build.phase, build.next_attempt), (BuildPhase::Waiting, Some(Time(at(130)))));
    assert!(find(&Case::first(down()).status(), "Ready").unwrap().message.contains("next attempt at 2027-01-15T"));
    let build = Case::first(working(BuildPhase::Building, 40, Some(found()))).status().build.unwrap();
    assert_eq!((build.percent, build.bytes_done, build.bytes_total), (Some(40), Some(40 << 10), Some(100 << 10)));
}

#[test]
fn transition_times_and_the_annotation() {
    let case = Case::after_publication(Outlook::Settled(Some(found())));
    assert_eq!(
        find(&case.status(), "Ready").unwrap().last_transition_time,
        Time(at(100)),
        "no transition, no new time"
    );
    assert_eq!(case.status(), case.previous, "nothing new, nothing to write");
    let asked = Case { reconcile_at: Some("x"), ..case };
    assert_eq!(asked.status().last_handled_reconcile_at.as_deref(), Some("x"));
    let working = Case { reconcile_at: Some("x"), ..Case::after_publication(working(BuildPhase::Resolving, 0, None)) };
    assert_eq!(working.status().last_handled_reconcile_at, None, "not handled yet");
}

#[test]
fn only_progress_may_be_postponed() {
    let at = |percent| Case::first(working(BuildPhase::Building, percent, Some(found()))).status();
    assert!(only_progress(&at(10), &at(20)));
    assert!(!only_progress(&at(10), &Case::first(down()).status()));
    let publishing = Case::first(working(BuildPhase::Publishing, 90, Some(found()))).status();
    assert!(!only_progress(&at(10), &publishing));
}

#[test]
fn twenty_patches_a_second() {
    let limiter = Limiter::default();
    let start = Instant::now();
    let taken = |from: Duration| (0..100).filter(|_| limiter.try_take(start + from)).count();
    assert_eq!(taken(Duration::ZERO), 20);
    assert_eq!(taken(Duration::from_millis(500)), 10);
    assert_eq!(taken(Duration::from_secs(60)), 20);
}

#[test]
fn long_messages_are_cut_between_characters() {
    let message = cut("ü".repeat(MESSAGE));
    assert!(message.len() <= MESSAGE + 3 && message.ends_with('…'));
}
