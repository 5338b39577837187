//! Free TCP ports, safe against tests of other processes that look for one at the same time.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;

/// Below Linux's ephemeral range (32768…), so that no outgoing connection takes a port between our look and the
/// daemon's bind.
const RANGE: std::ops::Range<u16> = 20000..32000;

/// Locks on the ports this process gave out; the kernel drops them with the process.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on and no other user of this harness has been given.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = PathBuf::from(format!("/tmp/siforge-ports-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    let start = std::process::id() as usize * 37 + taken.len() * 11;
    for step in 0..RANGE.len() {
        let port = RANGE.start + ((start + step) % RANGE.len()) as u16;
        let path = dir.join(port.to_string());
        let lock = File::create(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(lock);
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
