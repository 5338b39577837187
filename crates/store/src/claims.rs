//! Claims: "I am building this recipe". Advisory: a double build is waste, never an error, because equal recipes give equal bytes.
//!
//! A claim is made by `link` and holds a counter that its owner raises once per period. Who waits watches the counter with a
//! monotonic clock of its own ([`Watch`], pure) and may steal the claim when it has not moved for three periods: nobody compares
//! clocks of two machines.

use crate::durable::{self, Link};
use crate::writer::Writer;
use crate::{Error, Store};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use std::path::PathBuf;
use std::time::Duration;

const FORMAT: u32 = 1;
const LIMIT: u64 = 64 << 10;
/// Periods without a raise after which a claim is dead: two may be lost to a slow server.
pub const DEAD_AFTER_PERIODS: u32 = 3;

/// Who holds a claim, as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub format: u32,
    pub recipe: Digest,
    /// For people: `operator-7d9f/siforge-system`.
    pub owner: String,
    /// Tells two claims of one owner apart.
    pub token: String,
    pub counter: u64,
}

/// The outcome of asking for a claim.
#[derive(Debug)]
pub enum Acquired {
    Mine(Claim),
    Held(Holder),
}

/// A claim of this process. Dropping it leaves the file, to be stolen; [`Claim::release`] removes it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    holder: Holder,
}

impl Claim {
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Raises the counter; false if the claim was stolen, which means: someone else builds too.
    pub fn raise(&mut self) -> Result<bool, Error> {
        if !self.is_mine()? {
            return Ok(false);
        }
        let raised = Holder { counter: self.holder.counter + 1, ..self.holder.clone() };
        durable::json_temp(self.dir(), &raised, 0o644)?.rename(&self.path)?;
        self.holder = raised;
        Ok(true)
    }

    /// Ends the claim; a stolen one is left to its thief.
    pub fn release(self) -> Result<(), Error> {
        if self.is_mine()? {
            durable::remove(&self.path)?;
        }
        Ok(())
    }

    fn is_mine(&self) -> Result<bool, Error> {
        Ok(read(&self.path)?.is_some_and(|holder| holder.token == self.holder.token))
    }

    fn dir(&self) -> &std::path::Path {
        // A claim's path lies in `claims/`.
        self.path.parent().unwrap_or(std::path::Path::new("."))
    }
}

/// Whether a claim or lease moves, on the watcher's own monotonic clock. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    seen: Option<(String, u64, Duration)>,
}

impl Watch {
    /// Takes an observation at `now` (time since any fixed start); how long the counter of this token has stood still.
    pub fn observe(&mut self, token: &str, counter: u64, now: Duration) -> Duration {
        match &self.seen {
            Some((seen_token, seen_counter, since)) if seen_token == token && *seen_counter == counter => {
                now.saturating_sub(*since)
            }
            _ => {
                self.seen = Some((token.to_owned(), counter, now));
                Duration::ZERO
            }
        }
    }

    /// Whether the holder has stood still for three periods.
    pub fn is_dead(&mut self, holder: &Holder, now: Duration, period: Duration) -> bool {
        self.observe(&holder.token, holder.counter, now) >= period * DEAD_AFTER_PERIODS
    }
}

impl Store {
    /// Claims a recipe for `owner` (a text for people) unless someone holds it.
    pub fn claim(&self, recipe: &Digest, owner: &str) -> Result<Acquired, Error> {
        let path = self.layout().claim(recipe);
        let token = Writer::current().temp_name();
        let holder = Holder { format: FORMAT, recipe: *recipe, owner: owner.to_owned(), token, counter: 0 };
        let dir = path.parent().unwrap_or(self.root());
        let temp = durable::json_temp(dir, &holder, 0o644)?;
        loop {
            if temp.link(&path)? == Link::Made {
                return Ok(Acquired::Mine(Claim { path, holder }));
            }
            if let Some(other) = read(&path)? {
                return Ok(Acquired::Held(other));
            }
            // Released between our link and our look: try again.
        }
    }

    /// Takes over a claim that `seen` shows dead. If its owner moved meanwhile, it keeps it.
    pub fn steal_claim(&self, recipe: &Digest, owner: &str, seen: &Holder) -> Result<Acquired, Error> {
        let path = self.layout().claim(recipe);
        match read(&path)? {
            Some(now) if now == *seen => {}
            Some(now) => return Ok(Acquired::Held(now)),
            None => return self.claim(recipe, owner),
        }
        // Only one thief's rename finds the name; a claim that changed after our look is given back.
        let away = self.layout().temp().join(Writer::current().temp_name());
        match std::fs::rename(&path, &away) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.claim(recipe, owner);
            }
            other => other.map_err(Error::io("steal", &path))?,
        }
        let taken = read(&away);
        if taken.as_ref().is_ok_and(|taken| taken.as_ref() != Some(seen)) {
            // A new claim may have the name by now: then both build.
            let _ = std::fs::hard_link(&away, &path);
        }
        durable::remove(&away)?;
        taken?;
        self.claim(recipe, owner)
    }
}

fn read(path: &std::path::Path) -> Result<Option<Holder>, Error> {
    durable::read_json(path, LIMIT, FORMAT)
}
