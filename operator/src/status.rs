//! Outlook → status, and the one patch that writes it.
//!
//! [`project`] is pure: the status as it was, what is known now, and the clock give the status as it is to be. Its rules are
//! told where the conditions are defined (`siforge_crds::conditions`). [`write`] is one server-side apply with uid and resource
//! version, so that a status is never written onto another object of the same name, nor onto a newer spec than was read.

use crate::failure::{Failure, Reaction};
use crate::observe::Stored;
use crate::plan::Outlook;
use crate::units;
use crate::work::{Found, Progress, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use siforge_crds::conditions::{self, Reason};
use siforge_crds::{
    Artifact, BuildPhase, BuildStatus, Compression, FIELD_MANAGER, HistoryEntry, SingularityImage,
    SingularityImageStatus, SourceStatus,
};
use siforge_store::Ref;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Status patches per second for the whole operator: each one goes to every watch on SingularityImages.
const PATCHES_PER_SECOND: f64 = 20.0;
/// Bytes of a condition's message: more than any error of ours, and far below the schema's 32768 characters, as every watch
/// gets each of them.
const MESSAGE: usize = 8192;

/// What the status is made from.
pub(crate) struct Input<'a> {
    pub(crate) previous: &'a SingularityImageStatus,
    pub(crate) generation: i64,
    pub(crate) reconcile_at: Option<&'a str>,
    pub(crate) outlook: &'a Outlook,
    pub(crate) stored: &'a Stored,
    /// Codec of the spec; that of the artifact only once it is settled.
    pub(crate) compression: Option<Compression>,
    pub(crate) history: usize,
    pub(crate) store_root: &'a Path,
    pub(crate) now: Timestamp,
}

/// Whether `status` says that `generation` was published.
pub(crate) fn was_published(status: &SingularityImageStatus, generation: i64) -> bool {
    find(status, conditions::READY)
        .is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(generation))
}

pub(crate) fn find<'a>(status: &'a SingularityImageStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn project(input: &Input<'_>) -> SingularityImageStatus {
    let Input { previous, generation, reconcile_at, outlook, stored, .. } = *input;
    let handled = !matches!(outlook, Outlook::Working { .. });
    let current = stored.current.as_ref().filter(|_| stored.artifact);
    SingularityImageStatus {
        observed_generation: Some(generation),
        last_handled_reconcile_at: if handled {
            reconcile_at.map(str::to_owned)
        } else {
            previous.last_handled_reconcile_at.clone()
        },
        conditions: conditions_of(input),
        digest: current.map(|current| short(&current.digest.to_string())),
        size: current.map(|current| units::bytes(current.size)),
        source: source_of(input),
        artifacts: current.map(|current| artifact(input, current)).into_iter().collect(),
        build: build_of(outlook),
        history: stored.history.iter().take(input.history + 1).map(history_entry).collect(),
    }
}

/// `sha256:0123456789ab`
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn time(seconds: i64) -> Option<Time> {
    Timestamp::from_second(seconds).ok().map(Time)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn source_of(input: &Input<'_>) -> Option<SourceStatus> {
    let found = match input.outlook {
        Outlook::Settled(found) | Outlook::Working { found, .. } => found.as_ref(),
        Outlook::Failed { .. } | Outlook::Suspended => None,
    };
    match found {
        Some(found) => Some(SourceStatus { reference: found.reference.clone(), digest: found.manifest.to_string() }),
        None => input.previous.source.clone(),
    }
}

fn artifact(input: &Input<'_>, current: &Ref) -> Artifact {
    let digest = current.digest.to_string();
    let before = input.previous.artifacts.iter().find(|before| before.digest == digest);
    let compression = match input.outlook {
        Outlook::Settled(_) => input.compression,
        _ => before.and_then(|before| before.compression),
    };
    let path = siforge_store::Layout::new(input.store_root).artifact(&current.digest);
    let path = path.strip_prefix(input.store_root).unwrap_or(&path).display().to_string();
    Artifact {
        platform: current.platform.clone(),
        digest,
        path,
        size: number(current.size),
        revision: number(current.revision),
        built_at: time(current.published_at),
        compression,
        signers: Vec::new(),
    }
}

fn history_entry(revision: &Ref) -> HistoryEntry {
    HistoryEntry {
        revision: number(revision.revision),
        digest: revision.digest.to_string(),
        source_digest: revision.source.digest.to_string(),
        at: time(revision.published_at),
    }
}

fn build_of(outlook: &Outlook) -> Option<BuildStatus> {
    match outlook {
        Outlook::Working { progress, .. } => {
            let moving = matches!(progress.phase, BuildPhase::Building | BuildPhase::Publishing);
            Some(BuildStatus {
                phase: progress.phase,
                bytes_done: moving.then(|| number(progress.bytes_done)),
                bytes_total: moving.then(|| number(progress.bytes_total)),
                percent: moving.then(|| i32::from(progress.percent)),
                // Of an attempt that has not begun there is no beginning; the clock would also make every patch different.
                started_at: moving.then(|| time(progress.started_at.as_second())).flatten(),
                next_attempt: None,
            })
        }
        Outlook::Failed { next: Some(next), .. } => Some(BuildStatus {
            phase: BuildPhase::Waiting,
            next_attempt: time(next.as_second()),
            ..BuildStatus::default()
        }),
        Outlook::Failed { next: None, .. } | Outlook::Settled(_) | Outlook::Suspended => None,
    }
}

/// One condition as it is to be; None: absent.
type Wanted = Option<(&'static str, Reason, String)>;

fn conditions_of(input: &Input<'_>) -> Vec<Condition> {
    let previous = input.previous;
    let published = was_published(previous, input.generation) && input.stored.current.is_some();
    let (ready, reconciling, stalled) = summary(input, published);
    let wanted = [(conditions::READY, ready), (conditions::RECONCILING, reconciling), (conditions::STALLED, stalled)];
    let mut result: Vec<_> =
        wanted.into_iter().filter_map(|(kind, wanted)| Some(condition(input, kind, wanted?))).collect();
    let details = details(input.outlook);
    for kind in [conditions::SOURCE_RESOLVED, conditions::BUILT, conditions::PUBLISHED] {
        match details.iter().find(|(detail, _)| *detail == kind) {
            Some((_, wanted)) => result.extend(wanted.clone().map(|wanted| condition(input, kind, wanted))),
            // Not spoken of: what was true stays true, with the generation of which it was said.
            None => result.extend(find(previous, kind).cloned()),
        }
    }
    result
}

/// Ready, Reconciling, Stalled.
fn summary(input: &Input<'_>, published: bool) -> (Wanted, Wanted, Wanted) {
    let keep =
        || find(input.previous, conditions::READY).map(|ready| ("True", Reason::Succeeded, ready.message.clone()));
    match input.outlook {
        Outlook::Settled(_) => (Some(("True", Reason::Succeeded, published_message(input.stored))), None, None),
        Outlook::Working { .. } | Outlook::Suspended if published => (keep(), None, None),
        Outlook::Suspended => (
            Some(("Unknown", Reason::Suspended, "spec.suspend is set: this generation is not published".to_owned())),
            None,
            None,
        ),
        Outlook::Working { progress, .. } => {
            let (reason, message) = progress_message(progress);
            (Some(("Unknown", reason, message.clone())), Some(("True", reason, message)), None)
        }
        Outlook::Failed { failure, next, .. } => match failure.reaction {
            Reaction::Stalled => {
                let said = |status| Some((status, failure.reason, failure.message.clone()));
                (said("False"), None, said("True"))
            }
            Reaction::Waiting | Reaction::Transient { .. } if published => (keep(), None, None),
            Reaction::Waiting | Reaction::Transient { .. } => {
                let message = with_next(failure, *next);
                (Some(("Unknown", failure.reason, message.clone())), Some(("True", failure.reason, message)), None)
            }
        },
    }
}

fn published_message(stored: &Stored) -> String {
    match &stored.current {
        Some(current) => format!(
            "published {} ({}) as revision {}",
            short(&current.digest.to_string()),
            units::bytes(current.size),
            current.revision
        ),
        None => "published".to_owned(),
    }
}

fn progress_message(progress: &Progress) -> (Reason, String) {
    let amount = || format!("{} % of {}", progress.percent, units::bytes(progress.bytes_total));
    match progress.phase {
        BuildPhase::Resolving => (Reason::Resolving, "resolving the reference".to_owned()),
        // Waiting is told of failures alone (build_of).
        BuildPhase::Queued | BuildPhase::Waiting => (Reason::Queued, "waiting for a free builder".to_owned()),
        BuildPhase::Building => (Reason::Building, format!("building: {}", amount())),
        BuildPhase::Publishing => (Reason::Building, "publishing".to_owned()),
    }
}

fn with_next(failure: &Failure, next: Option<Timestamp>) -> String {
    match next {
        Some(next) => format!("{}; next attempt at {}", failure.message, next.strftime("%Y-%m-%dT%H:%M:%SZ")),
        None => failure.message.clone(),
    }
}

/// The conditions that an outlook speaks of.
fn details(outlook: &Outlook) -> Vec<(&'static str, Wanted)> {
    let resolved = |found: &Found| {
        let message = format!("{} is {}", found.reference, found.manifest);
        (conditions::SOURCE_RESOLVED, Some(("True", Reason::Succeeded, message)))
    };
    let yes = |kind, message: &str| (kind, Some(("True", Reason::Succeeded, message.to_owned())));
    match outlook {
        Outlook::Settled(found) => {
            let mut all: Vec<_> = found.iter().map(resolved).collect();
            all.extend([
                yes(conditions::BUILT, "the SIF is built"),
                yes(conditions::PUBLISHED, "the store's ref points at the SIF"),
            ]);
            all
        }
        Outlook::Working { found: None, .. } | Outlook::Suspended => vec![],
        Outlook::Working { found: Some(found), progress } => {
            let (reason, message) = progress_message(progress);
            vec![resolved(found), (conditions::BUILT, Some(("False", reason, message)))]
        }
        Outlook::Failed { stage, failure, next } => {
            let said = || Some(("False", failure.reason, with_next(failure, *next)));
            match stage {
                Stage::Inputs => vec![],
                Stage::Resolve => vec![(conditions::SOURCE_RESOLVED, said())],
                Stage::Build => vec![(conditions::BUILT, said())],
                Stage::Publish => vec![(conditions::PUBLISHED, said())],
            }
        }
    }
}

fn condition(input: &Input<'_>, kind: &str, (status, reason, message): (&str, Reason, String)) -> Condition {
    let since = find(input.previous, kind)
        .filter(|before| before.status == status)
        .map(|before| before.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: cut(message),
        last_transition_time: since.or_else(|| time(input.now.as_second())).unwrap_or(Time(input.now)),
        observed_generation: Some(input.generation),
    }
}

/// A registry may answer with a whole web page.
fn cut(message: String) -> String {
    match units::beginning(&message, MESSAGE) {
        whole if whole.len() == message.len() => message,
        beginning => format!("{beginning}…"),
    }
}

/// What became of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// The status says it already.
    Same,
    /// Only the progress differs, and there were many patches already; the next step of progress comes soon.
    Later,
    /// The object was changed after it was read: it is reconciled again.
    Stale,
}

pub(crate) async fn write(
    api: &Api<SingularityImage>,
    object: &SingularityImage,
    status: &SingularityImageStatus,
    limiter: &Limiter,
) -> Result<Written, kube::Error> {
    let previous = object.status.clone().unwrap_or_default();
    if previous == *status {
        return Ok(Written::Same);
    }
    if only_progress(&previous, status) {
        if !limiter.try_take(Instant::now()) {
            return Ok(Written::Later);
        }
    } else {
        limiter.take().await;
    }
    let body = serde_json::json!({
        "apiVersion": SingularityImage::api_version(&()),
        "kind": SingularityImage::kind(&()),
        "metadata": { "name": object.name_any(), "uid": object.uid(), "resourceVersion": object.resource_version() },
        "status": status,
    });
    match api.patch_status(&object.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(answer)) if answer.code == 409 || answer.code == 404 => Ok(Written::Stale),
        Err(error) => Err(error),
    }
}

/// Between two steps of a build that runs, the percentages are all that changes: in the build and in messages.
fn only_progress(before: &SingularityImageStatus, after: &SingularityImageStatus) -> bool {
    let plain = |status: &SingularityImageStatus| {
        let mut plain = status.clone();
        let build = plain.build.take();
        plain.conditions.iter_mut().for_each(|condition| condition.message.clear());
        (plain, build.map(|build| (build.phase, build.next_attempt)))
    };
    plain(before) == plain(after)
}

/// A token bucket of one second's worth.
pub(crate) struct Limiter(Mutex<(f64, Option<Instant>)>);

impl Default for Limiter {
    fn default() -> Self {
        Self(Mutex::new((PATCHES_PER_SECOND, None)))
    }
}

impl Limiter {
    pub(crate) fn try_take(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = *bucket;
        let passed = last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        let tokens = (tokens + passed * PATCHES_PER_SECOND).min(PATCHES_PER_SECOND);
        let taken = tokens >= 1.0;
        *bucket = (if taken { tokens - 1.0 } else { tokens }, Some(now));
        taken
    }

    async fn take(&self) {
        while !self.try_take(Instant::now()) {
            tokio::time::sleep(Duration::from_secs_f64(1.0 / PATCHES_PER_SECOND)).await;
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
