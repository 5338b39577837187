//! `siforge-operator`: reads the command line, runs, exits.

use clap::Parser;
use siforge_operator::cli::{Cli, Command, LogFormat};
use siforge_operator::config::{Config, Log};
use siforge_operator::controller;
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crd => print(&siforge_crds::yaml()),
        Command::Run(run) => {
            let (config, log) = Config::new(run);
            start_log(&log);
            serve(config)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn start_log(log: &Log) {
    let filter = EnvFilter::new(&log.filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn serve(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let result = runtime.block_on(async {
        let stop = stop_signal();
        controller::run(config, stop).await
    });
    // A build's thread may be in the middle of a block: it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// SIGTERM (a pod's end) or SIGINT (Ctrl-C).
async fn stop_signal() {
    // Installing a handler fails only for signals that cannot be caught.
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = format!("siforge-operator: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // Nothing is left to do when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
