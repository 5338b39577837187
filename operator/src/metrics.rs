//! Metrics: the names of controller-runtime, which dashboards know, and siforge's own. Labels come from closed sets.

use crate::status::Written;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::time::{Duration, Instant};

const CONTROLLER: &str = "singularityimage";

pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_seconds: HistogramVec,
    active: IntGaugeVec,
    resolves: IntCounterVec,
    builds: IntCounterVec,
    build_seconds: HistogramVec,
    running: IntGauge,
    queued: IntGauge,
    patches: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reconcile_buckets = vec![
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let build_buckets = vec![
            0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
        ];
        let metrics = Self {
            reconciles: counter(
                &registry,
                "controller_runtime_reconcile_total",
                "Reconciles, by result.",
                &["controller", "result"],
            )?,
            reconcile_errors: counter(
                &registry,
                "controller_runtime_reconcile_errors_total",
                "Reconciles that ended with an error.",
                &["controller"],
            )?,
            reconcile_seconds: histogram(
                &registry,
                "controller_runtime_reconcile_time_seconds",
                "Duration of a reconcile.",
                &["controller"],
                reconcile_buckets,
            )?,
            active: gauges(
                &registry,
                "controller_runtime_active_workers",
                "Reconciles that run.",
                &["controller"],
            )?,
            resolves: counter(
                &registry,
                "siforge_resolves_total",
                "References resolved, by result.",
                &["result"],
            )?,
            builds: counter(
                &registry,
                "siforge_builds_total",
                "Builds ended, by result.",
                &["result"],
            )?,
            build_seconds: histogram(
                &registry,
                "siforge_build_duration_seconds",
                "Duration of a build.",
                &["result"],
                build_buckets,
            )?,
            running: gauge(&registry, "siforge_builds_running", "Builds that run.")?,
            queued: gauge(
                &registry,
                "siforge_builds_queued",
                "Objects that wait for a free builder.",
            )?,
            patches: counter(
                &registry,
                "siforge_status_patches_total",
                "Status patches, by what became of them.",
                &["result"],
            )?,
            leader: gauge(&registry, "siforge_leader", "1 while this process leads.")?,
            registry,
        };
        // Series that are there from the start: a rate over a series that appears later misses its first count.
        metrics
            .reconcile_errors
            .with_label_values(&[CONTROLLER])
            .reset();
        for result in ["success", "error"] {
            metrics
                .reconciles
                .with_label_values(&[CONTROLLER, result])
                .reset();
            metrics.resolves.with_label_values(&[result]).reset();
            metrics.builds.with_label_values(&[result]).reset();
        }
        Ok(metrics)
    }

    /// Counts a reconcile as active until the guard goes.
    pub(crate) fn reconcile(&self) -> Measured<'_> {
        self.active.with_label_values(&[CONTROLLER]).inc();
        Measured {
            metrics: self,
            started: Instant::now(),
        }
    }

    pub(crate) fn reconciled(&self, ok: bool) {
        self.reconciles
            .with_label_values(&[CONTROLLER, result(ok)])
            .inc();
        if !ok {
            self.reconcile_errors.with_label_values(&[CONTROLLER]).inc();
        }
    }

    pub(crate) fn resolved(&self, ok: bool) {
        self.resolves.with_label_values(&[result(ok)]).inc();
    }

    pub(crate) fn built(&self, ok: bool, took: Duration) {
        self.builds.with_label_values(&[result(ok)]).inc();
        self.build_seconds
            .with_label_values(&[result(ok)])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn queue(&self, running: usize, queued: usize) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
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
        self.metrics.active.with_label_values(&[CONTROLLER]).dec();
        self.metrics
            .reconcile_seconds
            .with_label_values(&[CONTROLLER])
            .observe(self.started.elapsed().as_secs_f64());
    }
}

fn result(ok: bool) -> &'static str {
    if ok { "success" } else { "error" }
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
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
    buckets: Vec<f64>,
) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
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
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
