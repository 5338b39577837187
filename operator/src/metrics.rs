//! Metrics: the names of controller-runtime, which dashboards know, and siforge's own. Labels come from closed sets.

use crate::status::Written;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::{Duration, Instant};

const CONTROLLER: &str = "singularityimage";
/// Their series are there from the start: a rate over a series that appears later misses its first count.
const RESULTS: [&str; 2] = ["success", "error"];

/// Seconds: a reconcile is a few requests to the API server and the store.
const RECONCILE_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds: a build takes from under one (layers in the cache) up to spec.build.timeout, an hour by default.
const BUILD_BUCKETS: [f64; 12] = [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Reconciles,
    queue: Queue,
    patches: IntCounterVec,
    leader: IntGauge,
}

/// By controller-runtime's names and labels.
struct Reconciles {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    active: IntGaugeVec,
}

/// What goes on behind the reconciles.
struct Queue {
    resolves: IntCounterVec,
    builds: IntCounterVec,
    build_seconds: HistogramVec,
    running: IntGauge,
    queued: IntGauge,
}

impl Reconciles {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciles = Self {
            total: counter(
                registry,
                "controller_runtime_reconcile_total",
                "Reconciles, by result.",
                &["controller", "result"],
            )?,
            errors: counter(
                registry,
                "controller_runtime_reconcile_errors_total",
                "Reconciles that ended with an error.",
                &["controller"],
            )?,
            seconds: histogram(
                registry,
                "controller_runtime_reconcile_time_seconds",
                "Duration of a reconcile.",
                &["controller"],
                &RECONCILE_BUCKETS,
            )?,
            active: gauges(registry, "controller_runtime_active_workers", "Reconciles that run.", &["controller"])?,
        };
        reconciles.errors.with_label_values(&[CONTROLLER]).reset();
        for result in RESULTS {
            let series = reconciles.total.with_label_values(&[CONTROLLER, result]);
            series.reset();
        }
        Ok(reconciles)
    }
}

impl Queue {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let queue = Self {
            resolves: counter(registry, "siforge_resolves_total", "References resolved, by result.", &["result"])?,
            builds: counter(registry, "siforge_builds_total", "Builds ended, by result.", &["result"])?,
            build_seconds: histogram(
                registry,
                "siforge_build_duration_seconds",
                "Duration of a build.",
                &["result"],
                &BUILD_BUCKETS,
            )?,
            running: gauge(registry, "siforge_builds_running", "Builds that run.")?,
            queued: gauge(registry, "siforge_builds_queued", "Objects that wait for a free builder.")?,
        };
        for result in RESULTS {
            queue.resolves.with_label_values(&[result]).reset();
            queue.builds.with_label_values(&[result]).reset();
        }
        Ok(queue)
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self {
            reconciles: Reconciles::new(&registry)?,
            queue: Queue::new(&registry)?,
            patches: counter(
                &registry,
                "siforge_status_patches_total",
                "Status patches, by what became of them.",
                &["result"],
            )?,
            leader: gauge(&registry, "siforge_leader", "1 while this process leads.")?,
            registry,
        })
    }

    /// Counts a reconcile as active until the guard goes.
    pub(crate) fn reconcile(&self) -> Measured<'_> {
        self.reconciles.active.with_label_values(&[CONTROLLER]).inc();
        Measured { metrics: self, started: Instant::now() }
    }

    pub(crate) fn reconciled(&self, ok: bool) {
        self.reconciles.total.with_label_values(&[CONTROLLER, result(ok)]).inc();
        if !ok {
            self.reconciles.errors.with_label_values(&[CONTROLLER]).inc();
        }
    }

    pub(crate) fn resolved(&self, ok: bool) {
        self.queue.resolves.with_label_values(&[result(ok)]).inc();
    }

    pub(crate) fn built(&self, ok: bool, took: Duration) {
        self.queue.builds.with_label_values(&[result(ok)]).inc();
        self.queue.build_seconds.with_label_values(&[result(ok)]).observe(took.as_secs_f64());
    }

    pub(crate) fn queue(&self, running: usize, queued: usize) {
        self.queue.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queue.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    pub(crate) fn patched(&self, written: Written) {
        let result = match written {
            Written::Yes => "written",
            Written::Same => return,
            Written::Later => "postponed",
            Written::Stale => "stale",
        };
        self.patches.with_label_values(&[result]).inc();
    }

    pub(crate) fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A reconcile that runs.
pub(crate) struct Measured<'a> {
    metrics: &'a Metrics,
    started: Instant,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let reconciles = &self.metrics.reconciles;
        reconciles.active.with_label_values(&[CONTROLLER]).dec();
        reconciles.seconds.with_label_values(&[CONTROLLER]).observe(self.started.elapsed().as_secs_f64());
    }
}

fn result(ok: bool) -> &'static str {
    let [success, error] = RESULTS;
    if ok { success } else { error }
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_names_that_dashboards_use() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled(true);
        drop(metrics.reconcile());
        metrics.built(true, Duration::from_secs(3));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="singularityimage",result="success"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="singularityimage"} 0"#,
            r#"controller_runtime_active_workers{controller="singularityimage"} 0"#,
            r#"siforge_builds_total{result="success"} 1"#,
            "siforge_builds_running 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }
}
