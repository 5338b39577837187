//! The C edge: what Slurm looks up in the plugin, and what the plugin calls in Slurm (slurm/spank.h, Slurm 22.05 and later).
//!
//! The functions of Slurm belong to the program that loads the plugin and are bound at their first call. No panic
//! leaves a callback: it would abort slurmstepd, and Slurm would show the job as running for good.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::callbacks;
use crate::error::Error;
use crate::options::Which;

mod slurm {
    use std::ffi::{c_char, c_int, c_uint, c_void};

    /// `struct spank_option`
    #[repr(C)]
    pub(super) struct Option {
        pub(super) name: *const c_char,
        pub(super) arginfo: *const c_char,
        pub(super) usage: *const c_char,
        pub(super) has_arg: c_int,
        pub(super) val: c_int,
        pub(super) callback: extern "C" fn(c_int, *const c_char, c_int) -> c_int,
    }

    unsafe extern "C" {
        pub(super) fn spank_context() -> c_uint;
        pub(super) fn spank_option_register(spank: *mut c_void, option: *const Option) -> c_int;
        pub(super) fn spank_get_item(spank: *mut c_void, item: c_uint, ...) -> c_int;
        pub(super) fn spank_setenv(
            spank: *mut c_void,
            name: *const c_char,
            value: *const c_char,
            overwrite: c_int,
        ) -> c_int;
        pub(super) fn spank_unsetenv(spank: *mut c_void, name: *const c_char) -> c_int;
        pub(super) fn spank_job_control_setenv(
            spank: *mut c_void,
            name: *const c_char,
            value: *const c_char,
            overwrite: c_int,
        ) -> c_int;
        pub(super) fn slurm_spank_log(format: *const c_char, ...);
        pub(super) fn slurm_error(format: *const c_char, ...);
    }
}

/// `enum spank_item`
const S_JOB_STEPID: c_uint = 3;
const S_JOB_LOCAL_TASK_COUNT: c_uint = 6;
const S_JOB_ARGV: c_uint = 9;
const S_JOB_ENV: c_uint = 10;
const S_TASK_ID: c_uint = 11;

/// Words and variables that are read of a task: more than any kernel lets through execve(2).
const STRINGS_LIMIT: usize = 1 << 20;

/// `enum spank_context`: the program that has loaded the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// srun
    Local,
    /// slurmstepd
    Remote,
    /// sbatch, salloc
    Allocator,
    /// slurmd, its scripts, or what is not known yet.
    Other,
}

/// A job or task, as SPANK hands it to a callback.
pub(crate) struct Spank(*mut c_void);

impl Spank {
    pub(crate) fn context(&self) -> Context {
        // SAFETY: takes nothing.
        match unsafe { slurm::spank_context() } {
            1 => Context::Local,
            2 => Context::Remote,
            3 => Context::Allocator,
            _ => Context::Other,
        }
    }

    /// Registers all options; only from slurm_spank_init.
    pub(crate) fn register_options(&self) -> Result<(), Error> {
        for (which, value) in Which::ALL.into_iter().zip(0..) {
            let (name, arginfo, usage) = described(which);
            let option = slurm::Option {
                name: name.as_ptr(),
                arginfo: arginfo.map_or(std::ptr::null(), CStr::as_ptr),
                usage: usage.as_ptr(),
                has_arg: c_int::from(arginfo.is_some()),
                val: value,
                callback: option_given,
            };
            // SAFETY: Slurm copies the option (spank_option_register in plugstack.c); its strings are static.
            check("option table", unsafe { slurm::spank_option_register(self.0, &raw const option) })?;
        }
        Ok(())
    }

    pub(crate) fn step(&self) -> Result<u32, Error> {
        self.number("step id", S_JOB_STEPID)
    }

    pub(crate) fn local_tasks(&self) -> Result<u32, Error> {
        self.number("task count", S_JOB_LOCAL_TASK_COUNT)
    }

    /// The task's number on this node, from 0 on.
    pub(crate) fn local_task(&self) -> Result<u32, Error> {
        self.number("task id", S_TASK_ID)
    }

    /// An item that is a `uint32_t`, or an `int` that is not negative.
    fn number(&self, what: &'static str, item: c_uint) -> Result<u32, Error> {
        let mut number: u32 = 0;
        // SAFETY: each of the items used here is written as 32 bits.
        check(what, unsafe { slurm::spank_get_item(self.0, item, &raw mut number) })?;
        Ok(number)
    }

    /// The command's words. A program without a slash is looked up by slurmstepd after task_init, in the PATH that the
    /// task then has: the image's.
    pub(crate) fn argv(&self) -> Result<Vec<OsString>, Error> {
        let (mut count, mut words): (c_int, *mut *mut c_char) = (0, std::ptr::null_mut());
        // SAFETY: S_JOB_ARGV is written as int and char **.
        check("command", unsafe { slurm::spank_get_item(self.0, S_JOB_ARGV, &raw mut count, &raw mut words) })?;
        Ok(strings(words, usize::try_from(count).unwrap_or(0)))
    }

    /// The task's environment.
    pub(crate) fn environment(&self) -> Result<Vec<(OsString, OsString)>, Error> {
        let mut variables: *mut *mut c_char = std::ptr::null_mut();
        // SAFETY: S_JOB_ENV is written as char **.
        check("environment", unsafe { slurm::spank_get_item(self.0, S_JOB_ENV, &raw mut variables) })?;
        let pairs = strings(variables, STRINGS_LIMIT);
        Ok(pairs.iter().filter_map(|text| crate::environment::pair(text.as_bytes())).collect())
    }

    pub(crate) fn set_variable(&self, name: &OsStr, value: &OsStr) -> Result<(), Error> {
        let (name, value) = (c_string("variable", name)?, c_string("variable", value)?);
        // SAFETY: two C strings, which Slurm copies.
        check("way to set a variable", unsafe { slurm::spank_setenv(self.0, name.as_ptr(), value.as_ptr(), 1) })
    }

    pub(crate) fn unset_variable(&self, name: &OsStr) -> Result<(), Error> {
        let name = c_string("variable", name)?;
        // SAFETY: a C string.
        check("way to unset a variable", unsafe { slurm::spank_unsetenv(self.0, name.as_ptr()) })
    }

    /// Sets `SPANK_<name>` of Prolog and Epilog.
    pub(crate) fn set_prolog_variable(&self, name: &CStr, value: &str) -> Result<(), Error> {
        let value = c_string("variable", OsStr::new(value))?;
        // SAFETY: two C strings, which Slurm copies.
        check("way to set a variable of Prolog", unsafe {
            slurm::spank_job_control_setenv(self.0, name.as_ptr(), value.as_ptr(), 1)
        })
    }
}

/// A line for the user: on a node, srun shows it; of a batch script, it is in the job's output.
pub(crate) fn say(line: &str) {
    let line = CString::new(line.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the format takes one C string.
    unsafe { slurm::slurm_spank_log(c"siforge: %s".as_ptr(), line.as_ptr()) };
}

/// The same in the words of a client: `srun: error: …`.
pub(crate) fn say_error(line: &str) {
    let line = CString::new(line.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the format takes one C string.
    unsafe { slurm::slurm_error(c"siforge: %s".as_ptr(), line.as_ptr()) };
}

fn described(which: Which) -> (&'static CStr, Option<&'static CStr>, &'static CStr) {
    match which {
        Which::Image => {
            (c"sif", Some(c"NAMESPACE/NAME[@DIGEST]"), c"run the tasks in this image of the store; none: on the host")
        }
        Which::Bind => (c"sif-bind", Some(c"SRC[:DEST[:ro]][,...]"), c"show more of the host inside"),
        Which::Batch => (c"sif-batch", None, c"run the batch script itself in the image of --sif, too"),
    }
}

fn check(what: &'static str, code: c_int) -> Result<(), Error> {
    match code {
        0 => Ok(()),
        code => Err(Error::Slurm { what, code }),
    }
}

fn c_string(what: &'static str, text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_| Error::Slurm { what, code: libc::EINVAL })
}

/// Copies at most `limit` strings of an array that ends there or with a null.
fn strings(array: *mut *mut c_char, limit: usize) -> Vec<OsString> {
    let mut copies = Vec::new();
    if array.is_null() {
        return copies;
    }
    for index in 0..limit {
        // SAFETY: Slurm's arrays of strings end with a null, argv within its count; no element after it is read.
        let text = unsafe { *array.add(index) };
        if text.is_null() {
            break;
        }
        // SAFETY: an element that is not null is a C string.
        let text = unsafe { CStr::from_ptr(text) };
        copies.push(OsString::from_vec(text.to_bytes().to_vec()));
    }
    copies
}

/// Slurm's version as SLURM_VERSION_NUMBER has it; build.rs wrote it, in decimal.
const fn version() -> c_uint {
    let digits = env!("SIFORGE_SLURM_VERSION").as_bytes();
    let (mut number, mut index) = (0, 0);
    while index < digits.len() {
        number = number * 10 + (digits[index] - b'0') as c_uint;
        index += 1;
    }
    number
}

/// What `SPANK_PLUGIN(siforge, 1)` declares in C.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static plugin_name: [u8; 8] = *b"siforge\0";
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static plugin_type: [u8; 6] = *b"spank\0";
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static plugin_version: c_uint = version();
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static spank_plugin_version: c_uint = 1;
/// ESPANK_JOB_FAILURE (slurm_errno.h of Slurm 25.05 and later): a failing slurm_spank_init costs the job, not the node. Ours never fails.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static slurm_spank_init_failure_mode: c_int = 3012;

/// Runs a callback to its end, whatever happens in it.
fn guarded(callback: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|_| {
        callbacks::panicked();
        0
    })
}

extern "C" fn option_given(value: c_int, argument: *const c_char, remote: c_int) -> c_int {
    guarded(|| {
        let which = usize::try_from(value).ok().and_then(|index| Which::ALL.get(index));
        let argument = (!argument.is_null()).then(|| {
            // SAFETY: SPANK passes a C string or null.
            let argument = unsafe { CStr::from_ptr(argument) };
            OsString::from_vec(argument.to_bytes().to_vec())
        });
        match which {
            Some(which) if !callbacks::option(*which, argument, remote != 0) => -1,
            _ => 0,
        }
    })
}

/// Called first, in every program that loads the plugin.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn slurm_spank_init(spank: *mut c_void, count: c_int, words: *mut *mut c_char) -> c_int {
    guarded(|| {
        let words = strings(words, usize::try_from(count).unwrap_or(0));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        callbacks::init(&Spank(spank), &words);
        0
    })
}

/// After the options, in clients and in slurmstepd.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn slurm_spank_init_post_opt(spank: *mut c_void, _: c_int, _: *mut *mut c_char) -> c_int {
    guarded(|| {
        callbacks::init_post_opt(&Spank(spank));
        0
    })
}

/// In each task, still as root.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn slurm_spank_task_init_privileged(spank: *mut c_void, _: c_int, _: *mut *mut c_char) -> c_int {
    guarded(|| {
        callbacks::task_init_privileged(&Spank(spank));
        0
    })
}

/// In each task, as the user, last before execve.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn slurm_spank_task_init(spank: *mut c_void, _: c_int, _: *mut *mut c_char) -> c_int {
    let done = catch_unwind(AssertUnwindSafe(|| callbacks::task_init(&Spank(spank))));
    if let Err(error) = done.unwrap_or(Err(Error::Panicked)) {
        callbacks::end_task(&error);
    }
    0
}
