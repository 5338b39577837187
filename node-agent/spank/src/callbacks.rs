//! What each callback does, without the C around it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use siforge_launch::Bind;

use crate::config;
use crate::enter::{self, Step};
use crate::environment::{Change, Pair};
use crate::error::Error;
use crate::ffi::{self, Context, Spank};
use crate::options::{self, Given, Which};
use crate::settings::Settings;
use crate::share::Handover;

/// What is known in this process; a task has slurmstepd's as it was at the fork.
#[derive(Default)]
struct State {
    settings: Settings,
    given: Given,
    handover: Option<Handover>,
    /// The first thing that went wrong where nothing may fail.
    failure: Option<Error>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// Set for good when a callback panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Nothing but callbacks lock it, and SPANK calls one at a time.
fn with_state<T>(act: impl FnOnce(&mut State) -> T) -> T {
    let mut state: MutexGuard<'_, Option<State>> = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    act(state.get_or_insert_default())
}

impl State {
    fn namespace(&self) -> Option<&str> {
        self.settings.namespace.as_deref()
    }

    fn keep<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    /// With what the task's environment says.
    fn given_to(&self, environment: &[Pair]) -> Given {
        let variable = |wanted: &str| {
            let pair = environment.iter().find(|(name, _)| name == wanted);
            pair.map(|(_, value)| value.clone())
        };
        self.given.clone().or(variable(config::IMAGE), variable(config::BIND))
    }
}

/// A callback panicked. On a node all tasks fail from then on: whether they were to enter an image may not be known.
pub(crate) fn panicked() {
    PANICKED.store(true, Ordering::Relaxed);
}

pub(crate) fn init<S: AsRef<str>>(spank: &Spank, words: &[S]) {
    if spank.context() == Context::Other {
        return;
    }
    with_state(|state| {
        let settings = state.keep(Settings::parse(words));
        state.settings = settings.unwrap_or_default();
        let registered = state.keep(spank.register_options());
        if registered.is_none() && spank.context() != Context::Remote {
            ffi::say_error("the options of --sif can't be registered");
        }
    });
}

/// False: the client ends here, with this message. On a node the value is kept, and looked at again in [`task_init`].
pub(crate) fn option(which: Which, value: Option<OsString>, remote: bool) -> bool {
    with_state(|state| {
        let namespace = state.settings.namespace.clone();
        let taken = state.given.take(which, value, namespace.as_deref());
        // A misspelt plugstack.conf is told to those whom it concerns.
        let error = match (&state.failure, &taken) {
            (Some(failure), _) => failure,
            (None, Err(error)) => error,
            (None, Ok(())) => return true,
        };
        if !remote {
            ffi::say_error(&error.to_string());
        }
        remote
    })
}

pub(crate) fn init_post_opt(spank: &Spank) {
    with_state(|state| match spank.context() {
        Context::Local | Context::Allocator => {
            state.given =
                std::mem::take(&mut state.given).or(config::client(config::IMAGE), config::client(config::BIND));
            // An image that the environment misspells fails the step.
            if let Ok(Some(image)) = state.given.image(state.namespace()) {
                // Not to be had by a step in an allocation: its Prolog has run. It warms and leases by itself.
                let _ = spank.set_prolog_variable(c"SIF_IMAGE", &image);
            }
        }
        Context::Remote => {
            let prepared = prepare(spank, state);
            state.keep(prepared);
        }
        Context::Other => {}
    });
}

fn prepare(spank: &Spank, state: &mut State) -> Result<(), Error> {
    let given = state.given_to(&spank.environment()?);
    if given.enters(spank.step()?) && spank.local_tasks()? > 1 {
        state.handover = Some(Handover::new()?);
    }
    Ok(())
}

/// Capabilities outlive the change to the user; none of them is effective after it.
pub(crate) fn task_init_privileged(spank: &Spank) {
    with_state(|state| {
        let kept = spank.environment().and_then(|environment| {
            if state.given_to(&environment).enters(spank.step()?) {
                enter::keep_capabilities()?;
            }
            Ok(())
        });
        state.keep(kept);
    });
}

/// Into the image, if there is one.
pub(crate) fn task_init(spank: &Spank) -> Result<(), Error> {
    if PANICKED.load(Ordering::Relaxed) {
        return Err(Error::Panicked);
    }
    let mut state = with_state(std::mem::take);
    let environment = spank.environment()?;
    let number = spank.step()?;
    let given = state.given_to(&environment);
    if !given.enters(number) {
        return Ok(());
    }
    let first = spank.local_task()? == 0;
    let handover = state.handover.take();
    let result = step(spank, state, &given, environment, number).and_then(|step| step.enter(first, handover.as_ref()));
    let changes = match (result, &handover) {
        (Ok(changes), _) => changes,
        (Err(error), Some(handover)) if first => {
            // Should it not arrive, the others give up by themselves; the reason is what matters here.
            let _ = handover.failed(error.exit_code());
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    for change in changes {
        match change {
            Change::Set(name, value) => spank.set_variable(&name, &value)?,
            Change::Unset(name) => spank.unset_variable(&name)?,
        }
    }
    Ok(())
}

fn step(spank: &Spank, state: State, given: &Given, environment: Vec<Pair>, number: u32) -> Result<Step, Error> {
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    let argv = spank.argv()?;
    let mut binds = state.settings.binds.clone();
    binds.extend(given.binds()?);
    if options::is_batch(number) {
        binds.extend(argv.first().map(|script| Bind::same(PathBuf::from(script))));
    }
    let image = given.image(state.namespace())?.unwrap_or_default();
    Ok(Step { socket: state.settings.socket, image, binds, bind_text: given.bind_text(), argv, environment })
}

/// Says why, and ends this process as the task that it is. No destructor and no buffer of slurmstepd's is touched.
pub(crate) fn end_task(error: &Error) -> ! {
    if !error.is_said_elsewhere() {
        ffi::say(&error.to_string());
    }
    siforge_launch::syscall::exit_now(error.exit_code().into())
}
