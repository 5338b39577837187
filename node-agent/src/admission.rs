//! How many may be connected at once: a bound on threads, and none of it for one user alone. Pure.

use std::collections::BTreeMap;

/// All connections. Each costs a thread with a small stack; 128 ranks of a step fit several times.
const TOTAL: usize = 512;
/// Of these for root alone: Slurm's hooks and health check get through however busy users are.
const FOR_ROOT: usize = 64;
/// Connections of one uid other than root: no user keeps the others out.
const PER_USER: usize = 256;

/// Counts connections.
#[derive(Debug, Default)]
pub struct Admission {
    total: usize,
    by_user: BTreeMap<u32, usize>,
}

impl Admission {
    /// Whether one more of `uid` may connect; if so it is counted.
    pub fn enter(&mut self, uid: u32) -> bool {
        let mine = self.by_user.get(&uid).copied().unwrap_or(0);
        let (room, share) = match uid {
            0 => (TOTAL, TOTAL),
            _ => (TOTAL - FOR_ROOT, PER_USER),
        };
        if self.total >= room || mine >= share {
            return false;
        }
        self.total += 1;
        self.by_user.insert(uid, mine + 1);
        true
    }

    /// One of `uid` went.
    pub fn leave(&mut self, uid: u32) {
        self.total = self.total.saturating_sub(1);
        match self.by_user.get_mut(&uid) {
            Some(mine) if *mine > 1 => *mine -= 1,
            _ => drop(self.by_user.remove(&uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_keeps_the_others_out() {
        let mut admission = Admission::default();
        assert!((0..PER_USER).all(|_| admission.enter(1000)));
        assert!(!admission.enter(1000));
        let others = TOTAL - FOR_ROOT - PER_USER;
        assert!((0..others).all(|_| admission.enter(1001)));
        assert!(!admission.enter(1001));
        assert!((0..FOR_ROOT).all(|_| admission.enter(0)));
        assert!(!admission.enter(0));
        (0..=FOR_ROOT).for_each(|_| admission.leave(1000));
        assert!(admission.enter(1002) && !admission.enter(1002));
        (FOR_ROOT + 1..PER_USER).for_each(|_| admission.leave(1000));
        assert!(admission.enter(1000));
        assert_eq!(admission.by_user.get(&1000), Some(&1));
    }
}
