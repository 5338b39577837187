//! `siforge-agent`: what was typed → what is done → an exit code. Errors are reported here and nowhere else.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use siforge_node_agent::cli::{Cli, Command, InstallRuntime, LogFormat, Options, SlurmCommand};
use siforge_node_agent::config::{self, Local, process_environment};
use siforge_node_agent::install::{self, Places};
use siforge_node_agent::mounts::Mounts;
use siforge_node_agent::node::{Node, chain};
use siforge_node_agent::slurm::{self, Hook};
use siforge_node_agent::state_dir::StateDir;
use siforge_node_agent::{registry, server, status};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(hook) = hook_of(&arguments) {
        return run_hook(hook, arguments);
    }
    let cli = Cli::parse_from(arguments);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed there is nobody to tell; the exit code says it.
            let _ = writeln!(std::io::stderr(), "siforge-agent: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let Cli { options, command } = cli;
    match command {
        None => serve(options, false),
        Some(Command::Serve { unmount_on_exit }) => serve(options, *unmount_on_exit),
        Some(Command::Status { json }) => print_status(options, *json),
        Some(Command::Cleanup) => cleanup(options),
        Some(Command::InstallRuntime(asked)) => told(install::install(&places(options, asked)?, asked.dry_run)?),
        Some(Command::UninstallRuntime(asked)) => told(install::uninstall(&places(options, asked)?, asked.dry_run)?),
        Some(Command::Slurm(SlurmCommand::Check)) => {
            let socket = config::local(options, &process_environment)?.socket;
            let status = slurm::check(&socket)?;
            print(&format!("siforge-agent {} answers, {} images mounted\n", status.version, status.mounts.len()))
        }
        // Not reached: main() takes these two out before anything can fail. If it did, they end as they must.
        Some(Command::Slurm(SlurmCommand::Prolog | SlurmCommand::Epilog)) => Ok(()),
    }
}

fn told(lines: Vec<String>) -> Outcome {
    print(&(lines.join("\n") + "\n"))
}

fn places(options: &Options, asked: &InstallRuntime) -> Result<Places, Box<dyn std::error::Error>> {
    let local = config::local(options, &process_environment)?;
    let beside = || -> std::io::Result<_> { Ok(std::env::current_exe()?.with_file_name("siforge-runtime")) };
    Ok(Places {
        config: asked.containerd_config.clone(),
        containerd: asked.containerd.clone(),
        prefix: asked.prefix.clone(),
        wrapper: asked.wrapper.clone().map_or_else(beside, Ok)?,
        socket: local.socket,
        state_dir: local.state_dir,
    })
}

/// The hook that slurmd called, told before clap may refuse the rest of the line: the exit code of these is 0 come what may.
fn hook_of(arguments: &[OsString]) -> Option<Hook> {
    arguments.windows(2).find(|pair| pair[0] == "slurm").and_then(|pair| match pair[1].to_str() {
        Some("prolog") => Some(Hook::Prolog),
        Some("epilog") => Some(Hook::Epilog),
        _ => None,
    })
}

fn run_hook(hook: Hook, arguments: Vec<OsString>) -> ExitCode {
    let outcome = std::panic::catch_unwind(|| {
        let socket = Cli::try_parse_from(arguments)
            .map_err(|error| error.to_string())
            .and_then(|cli| config::local(&cli.options, &process_environment).map_err(|error| chain(&error)))
            .map(|local| local.socket);
        match socket {
            Ok(socket) => slurm::run(hook, &process_environment, &socket),
            Err(error) => slurm::say(hook, &error),
        }
    });
    if outcome.is_err() {
        slurm::say(hook, "it ended unexpectedly");
    }
    ExitCode::SUCCESS
}

fn serve(options: &Options, unmount_on_exit: bool) -> Outcome {
    // Before any thread is: they inherit it.
    let signals = server::block_signals()?;
    let host_name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let config = config::load(options, &process_environment, &host_name)?;
    start_log(&config.local)?;
    if !nix::unistd::geteuid().is_root() {
        return Err("the agent mounts images and must be started as root".into());
    }
    let (local, registry) = (config.local.clone(), config.registry);
    let _locked = StateDir::lock(&local.state_dir)?;
    // The socket is ours alone from before the node is taken up, and is listened on after.
    let node = Node::start(config)?;
    let listener = server::listen(&local.socket)?;
    if let Some(address) = registry {
        registry::start(&node, address, &local.state_dir)?;
    }
    tracing::info!(socket = %local.socket.display(), "listening");
    server::serve(listener, &local.socket, &signals, &node)?;
    // Under the lock: no other agent's socket can be there.
    let _ = std::fs::remove_file(&local.socket);
    if unmount_on_exit {
        let count = node.mounts().unmount_all()?;
        tracing::info!(count, "unmounted at exit");
    }
    Ok(())
}

fn print_status(options: &Options, json: bool) -> Outcome {
    let socket = config::local(options, &process_environment)?.socket;
    let status = slurm::check(&socket)?;
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&status)?)),
        false => print(&status::text(&status)),
    }
}

fn cleanup(options: &Options) -> Outcome {
    let local = config::local(options, &process_environment)?;
    start_log(&local)?;
    let _locked = StateDir::lock(&local.state_dir)?;
    // The store is not looked at: cleaning up must be possible without it.
    let count = Mounts::new(&local.state_dir).unmount_all()?;
    tracing::info!(count, "unmounted");
    Ok(())
}

fn print(text: &str) -> Outcome {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn start_log(local: &Local) -> Outcome {
    // Targets rather than EnvFilter: no regular expressions in a daemon that stays small.
    let wanted: Targets = local.log.parse().map_err(|error| format!("setting log: {:?}: {error}", local.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match local.log_format {
        LogFormat::Json => registry.with(lines.json().with_filter(wanted)).try_init()?,
        LogFormat::Text => registry.with(lines.with_ansi(false).with_filter(wanted)).try_init()?,
    }
    Ok(())
}
