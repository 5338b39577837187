//! The server, judged by the kernel: trees that mksquashfs took are looked at through a mount. Needs root, as users may
//! mount only in namespaces of their own; tests/integration has the user's way.

mod hostile;
mod mounted;
mod protocol;
#[path = "../../../squashfs/tests/read/sample.rs"]
mod sample;
#[path = "../../../squashfs/tests/read/seen.rs"]
#[expect(dead_code, reason = "the reader's tests use more of it")]
mod seen;
mod tree;
