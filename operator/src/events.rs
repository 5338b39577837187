//! Kubernetes Events: what `kubectl describe` shows below an object. A closed set of reasons.

use crate::status::find;
use crate::units;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use siforge_crds::{SingularityImage, SingularityImageStatus, conditions};

/// The API server refuses longer notes (1 kB).
const NOTE: usize = 1000;

/// Everything that is worth an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The reference resolved to another digest than before.
    Resolved,
    /// A build began.
    Building,
    /// The name points at another artifact, or has other access rules.
    Published,
    /// The user must act.
    Stalled,
    /// A failure that may pass.
    Retrying,
    /// spec.suspend was set.
    Suspended,
}

impl Kind {
    fn reason(self) -> &'static str {
        match self {
            Self::Resolved => "Resolved",
            Self::Building => "Building",
            Self::Published => "Published",
            Self::Stalled => "Stalled",
            Self::Retrying => "Retrying",
            Self::Suspended => "Suspended",
        }
    }

    fn severity(self) -> EventType {
        match self {
            Self::Stalled | Self::Retrying => EventType::Warning,
            Self::Resolved | Self::Building | Self::Published | Self::Suspended => EventType::Normal,
        }
    }
}

/// What a change of status is worth telling. Pure.
pub(crate) fn of(
    before: &SingularityImageStatus,
    after: &SingularityImageStatus,
    suspended: bool,
) -> Vec<(Kind, String)> {
    let mut events = Vec::new();
    let message = |kind: &str| find(after, kind).map(|condition| condition.message.clone()).unwrap_or_default();
    let reason = |status: &SingularityImageStatus, kind: &str| {
        find(status, kind).map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    if let Some(source) = after.source.as_ref().filter(|source| before.source.as_ref() != Some(source)) {
        events.push((Kind::Resolved, format!("{} is {}", source.reference, source.digest)));
    }
    let building =
        |status: &SingularityImageStatus| status.build.as_ref().is_some_and(|build| build.started_at.is_some());
    if building(after) && !building(before) {
        events.push((Kind::Building, message(conditions::BUILT)));
    }
    let revision = |status: &SingularityImageStatus| status.artifacts.first().map(|artifact| artifact.revision);
    if revision(after).is_some() && revision(after) != revision(before) {
        events.push((Kind::Published, message(conditions::READY)));
    }
    if let Some(stalled) = reason(after, conditions::STALLED)
        .filter(|stalled| reason(before, conditions::STALLED).as_ref() != Some(stalled))
    {
        events.push((Kind::Stalled, format!("{}: {}", stalled.1, message(conditions::STALLED))));
    }
    let next = |status: &SingularityImageStatus| status.build.as_ref().and_then(|build| build.next_attempt.clone());
    if next(after).is_some() && next(after) != next(before) {
        let failed = [conditions::SOURCE_RESOLVED, conditions::BUILT, conditions::PUBLISHED]
            .into_iter()
            .find(|kind| find(after, kind).is_some_and(|condition| condition.status == "False"));
        events.push((Kind::Retrying, failed.map(message).unwrap_or_default()));
    }
    let was = |status: &SingularityImageStatus| {
        find(status, conditions::READY).is_some_and(|ready| ready.reason == conditions::Reason::Suspended.as_str())
    };
    if suspended && was(after) && !was(before) {
        events.push((Kind::Suspended, message(conditions::READY)));
    }
    events
}

pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self {
            recorder: Recorder::new(
                client,
                Reporter { controller: siforge_crds::FIELD_MANAGER.to_owned(), instance: Some(instance) },
            ),
        }
    }

    /// Events are for people: when one cannot be written, the work goes on.
    pub(crate) async fn publish(&self, object: &SingularityImage, events: &[(Kind, String)]) {
        for (kind, note) in events {
            let note = units::beginning(note, NOTE).to_owned();
            let event = Event {
                type_: kind.severity(),
                reason: kind.reason().to_owned(),
                note: Some(note),
                action: kind.reason().to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
                tracing::warn!(%error, reason = kind.reason(), "writing an event failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(value: Value) -> SingularityImageStatus {
        serde_json::from_value(value).unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({ "type": kind, "status": status, "reason": reason, "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn what_a_change_tells() {
        let check = |before: Value, after: Value, suspended: bool, expect: &[Kind]| {
            let kinds: Vec<_> = of(&status(before.clone()), &status(after.clone()), suspended)
                .into_iter()
                .map(|(kind, _)| kind)
                .collect();
            assert_eq!(kinds, expect, "{before} → {after}");
        };
        let source = json!({ "source": { "reference": "r", "digest": "d" } });
        check(json!({}), source.clone(), false, &[Kind::Resolved]);
        check(source.clone(), source, false, &[]);
        let building = json!({ "build": { "phase": "Building", "startedAt": "2026-01-01T00:00:00Z" } });
        check(json!({}), building.clone(), false, &[Kind::Building]);
        check(building.clone(), building, false, &[]);
        let artifact = |revision: i64| json!({ "artifacts": [{ "platform": "linux/amd64", "digest": "d", "path": "p", "size": 1, "revision": revision }] });
        check(json!({}), artifact(1), false, &[Kind::Published]);
        check(artifact(1), artifact(2), false, &[Kind::Published]);
        check(artifact(2), json!({}), false, &[]);
        let stalled = |reason: &str| json!({ "conditions": [condition("Stalled", "True", reason)] });
        check(json!({}), stalled("NotFound"), false, &[Kind::Stalled]);
        check(stalled("NotFound"), stalled("NotFound"), false, &[]);
        check(stalled("NotFound"), stalled("Unauthorized"), false, &[Kind::Stalled]);
        let retrying = |at: &str| json!({ "conditions": [condition("SourceResolved", "False", "RegistryUnavailable")], "build": { "phase": "Waiting", "nextAttempt": at } });
        check(json!({}), retrying("2026-01-01T00:00:00Z"), false, &[Kind::Retrying]);
        check(retrying("2026-01-01T00:00:00Z"), retrying("2026-01-01T00:00:10Z"), false, &[Kind::Retrying]);
        let suspended = json!({ "conditions": [condition("Ready", "Unknown", "Suspended")] });
        check(json!({}), suspended, true, &[Kind::Suspended]);
    }
}
