//! Namespaces, id maps, mounts and the process, from a pure [`Plan`]. All `unsafe` of the project lives in `syscall` here
//! (and at the C edge of node-agent/spank). Knows nothing of SIF, OCI or Slurm: it gets an fd, an offset, a filesystem type and a Plan.
#![allow(unsafe_code)]

// plan.rs  (pure, serde): pub struct Plan { root: Root, namespaces, id maps, mounts: Vec<Mount>, env, argv, cwd, … }; plan::make(&Request, &Host) -> Result<Plan, Error>
// syscall.rs: the only unsafe; open_tree, move_mount, mount_setattr, fsopen/fsconfig/fsmount, pivot_root, loop ioctls, setns …
// loopdev.rs: attach(file, offset, size, read_only, autoclear) -> LoopDevice
// image.rs: mount a squashfs: file+offset+size → detached mount fd (fsopen/fsmount or mount+open_tree); clone_detached(mount, idmap userns) → fd
// exec.rs: thin executor: enter(plan, root_fd) -> ! / spawn
