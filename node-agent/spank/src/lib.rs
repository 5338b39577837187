//! The SPANK plugin: `srun --sif=lab/lolcow fortune`.
//!
//! ```text
//!  srun, sbatch, salloc         slurmstepd (root)              each task of the step
//!  ────────────────────         ─────────────────              ────────────────────────────────────────────────
//!  --sif is parsed        ───▶  init: options, again
//!  SPANK_SIF_IMAGE for          init_post_opt: a socketpair
//!  Prolog                       fork ───────────────────────▶  task_init_privileged (root): keep capabilities
//!                                                              become the user
//!                                                              task_init:
//!                                                                raise CAP_SYS_ADMIN, CAP_SYS_CHROOT alone
//!                                                                first: image from the agent, mount namespace
//!                                                                others: setns, by the first one's descriptor
//!                                                                drop all capabilities, no_new_privs
//!                                                                environment of the image
//!                                                              command looked up in the image's PATH, execve
//! ```
//!
//! **An image never costs a node.** What Slurm makes of a callback that fails differs: a node is drained, or the command
//! runs on the host and the job succeeds (tests/integration/slurm.rs holds the table). So all callbacks succeed, whatever
//! happened; only the option's own callback, in the client, refuses. What goes wrong on a node is kept until task_init,
//! which prints it and ends the task by `_exit`, which alone fails a step with our code and touches nothing else.
//!
//! There is no user namespace: groups, rights on network file systems, and copies between the memories of ranks (CMA)
//! are those of any other step.

mod callbacks;
mod config;
mod enter;
mod environment;
mod error;
mod ffi;
mod options;
mod settings;
mod share;
