//! `siforge cache`: what the per-user cache holds, and less of it.
//!
//! Flags and words are those of Apptainer's `cache` where it has them. `clean` removes at once; `gc` takes the way that
//! builds on other hosts do not notice (`siforge_store::cache`).

use crate::cli::{CacheCommand, CacheGc, Clean, Kind, ListCache};
use crate::config::Config;
use crate::error::Error;
use serde_json::json;
use siforge_store::cache::{self, Entry, Removal, What};
use siforge_store::{Blobs, Store};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long what left the cache may wait.
const MINUTES: u64 = cache::GRACE.as_secs() / 60;

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(86_400))
}

/// An entry as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    kind: Kind,
    name: String,
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// Of blobs and packs.
    entry: Option<Entry>,
}

pub(crate) fn run(config: &Config, command: &CacheCommand) -> Result<(), Error> {
    match command {
        CacheCommand::List(options) => list(config, options),
        CacheCommand::Clean(options) => clean(config, options),
        CacheCommand::Gc(options) => gc(config, options),
    }
}

fn list(config: &Config, options: &ListCache) -> Result<(), Error> {
    let items: Vec<Item> = items(config)?.into_iter().filter(|item| is_of(&options.r#type, item.kind)).collect();
    let mut out = io::stdout().lock();
    // A closed standard output is no reason to fail.
    let _ = match options.json {
        true => writeln!(out, "{:#}", json!(items.iter().map(as_json).collect::<Vec<_>>())),
        false => out.write_all(text(&items, options.all).as_bytes()),
    };
    Ok(())
}

fn clean(config: &Config, options: &Clean) -> Result<(), Error> {
    let now = SystemTime::now();
    let goes = |item: &Item| {
        is_of(&options.r#type, item.kind)
            && (options.days == 0 || now.duration_since(item.used).is_ok_and(|age| age >= days(options.days)))
            && (options.name.is_empty() || options.name.iter().any(|name| item.name.starts_with(name.as_str())))
    };
    let items: Vec<Item> = items(config)?.into_iter().filter(goes).collect();
    if options.dry_run {
        items.iter().for_each(|item| println!("would remove {} {} ({})", word(item.kind), item.name, size(item.bytes)));
        return Ok(());
    }
    if !options.force && !items.is_empty() && !confirmed(&items)? {
        return Err(Error::NotConfirmed);
    }
    let mut freed = 0;
    for item in &items {
        if let Some(entry) = &item.entry {
            freed += if cache::remove(entry)? { item.bytes } else { 0 };
            continue;
        }
        match std::fs::remove_file(&item.path) {
            Ok(()) => freed += item.bytes,
            // Another one was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Cache { path: item.path.clone(), source }),
        }
    }
    println!("removed {} entries, {}", items.len(), size(freed));
    Ok(())
}

fn gc(config: &Config, options: &CacheGc) -> Result<(), Error> {
    let bound = match &options.size {
        Some(text) => parse_size(text).ok_or_else(|| Error::CacheSize { value: text.clone() })?,
        None => config.cache_bytes,
    };
    let Some(blobs) = blobs(config)? else {
        return Ok(());
    };
    let removal = Removal::of(&blobs, true);
    let gone = match options.dry_run {
        true => cache::surplus(cache::entries(&blobs)?, bound, SystemTime::now()),
        false => cache::enforce(&blobs, bound, removal)?,
    };
    let verb = if options.dry_run { "would remove" } else { "removed" };
    for item in gone.iter().map(item) {
        println!("{verb} {} {} ({})", word(item.kind), item.name, size(item.bytes));
    }
    let waiting = cache::discarded(&blobs)?;
    if !options.dry_run && !waiting.is_empty() {
        let bytes = waiting.iter().map(|discarded| discarded.bytes).sum();
        println!(
            "{} of it are freed in {} minutes; `siforge cache clean -T trash` frees them now",
            size(bytes),
            MINUTES
        );
    }
    Ok(())
}

fn confirmed(items: &[Item]) -> Result<bool, Error> {
    let bytes = items.iter().map(|item| item.bytes).sum();
    eprintln!("This will delete {} entries of your cache, {}.", items.len(), size(bytes));
    eprintln!("Hint: you can see what would be deleted with the --dry-run option.");
    eprint!("Do you want to continue? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|source| Error::Prompt { source })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// None if there is no cache yet.
fn blobs(config: &Config) -> Result<Option<Blobs>, Error> {
    let dir = config.cache.join("blobs");
    Ok(if dir.is_dir() { Some(Blobs::at(&dir)?) } else { None })
}

/// By kind and name.
fn items(config: &Config) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    if let Some(blobs) = blobs(config)? {
        items.extend(cache::entries(&blobs)?.iter().map(item));
        let discarded = cache::discarded(&blobs)?.into_iter();
        items.extend(discarded.map(|gone| plain(Kind::Trash, file_name(&gone.path), gone.path, gone.bytes, gone.used)));
    }
    if let Ok(store) = Store::open(&config.cache) {
        for (digest, path) in store.artifacts()? {
            // One that goes meanwhile is not there.
            let Ok(metadata) = path.metadata() else { continue };
            let used = metadata.accessed().or_else(|_| metadata.modified()).unwrap_or(UNIX_EPOCH);
            items.push(plain(Kind::Image, digest.hex(), path, metadata.len(), used));
        }
    }
    items.sort_by(|a, b| (a.kind as u8, &a.name).cmp(&(b.kind as u8, &b.name)));
    Ok(items)
}

fn item(entry: &Entry) -> Item {
    let kind = match entry.what {
        What::Blob => Kind::Blob,
        What::Pack { .. } => Kind::Pack,
    };
    let item = plain(kind, file_name(&entry.path), entry.path.clone(), entry.bytes, entry.used);
    Item { entry: Some(entry.clone()), ..item }
}

fn plain(kind: Kind, name: String, path: PathBuf, bytes: u64, used: SystemTime) -> Item {
    Item { kind, name, path, bytes, used, entry: None }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_of(kinds: &[Kind], kind: Kind) -> bool {
    kinds.iter().any(|wanted| *wanted == kind || *wanted == Kind::All)
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Blob => "blob",
        Kind::Pack => "pack",
        Kind::Image => "image",
        Kind::Trash => "trash",
        Kind::All => "all",
    }
}

fn as_json(item: &Item) -> serde_json::Value {
    json!({
        "kind": word(item.kind),
        "name": item.name,
        "path": item.path,
        "bytes": item.bytes,
        "used": date(item.used),
    })
}

fn text(items: &[Item], each: bool) -> String {
    let mut out = String::new();
    if each {
        out += &format!("{:<24} {:<21} {:<12} TYPE\n", "NAME", "LAST USED", "SIZE");
        for item in items {
            let name: String = item.name.chars().take(22).collect();
            out += &format!("{name:<24} {:<21} {:<12} {}\n", date(item.used), size(item.bytes), word(item.kind));
        }
        out.push('\n');
    }
    let sum = |kind: Kind| {
        let of = items.iter().filter(|item| item.kind == kind);
        of.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.bytes))
    };
    let (images, blobs, packs, trash) = (sum(Kind::Image), sum(Kind::Blob), sum(Kind::Pack), sum(Kind::Trash));
    out += &format!(
        "There are {} container file(s) using {}, {} oci blob file(s) using {} and {} layer pack(s) using {} of space\n",
        images.0,
        size(images.1),
        blobs.0,
        size(blobs.1),
        packs.0,
        size(packs.1),
    );
    if trash.0 > 0 {
        out += &format!(
            "{} file(s) using {} left the cache, and a pull frees them after {MINUTES} minutes\n",
            trash.0,
            size(trash.1)
        );
    }
    out += &format!("Total space used: {}\n", size(images.1 + blobs.1 + packs.1 + trash.1));
    out
}

/// As Apptainer prints sizes.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.2} {unit}")
}

/// `10G`, `512M`, `1024`: powers of 1024.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "Ki" | "KiB" => 10,
        "M" | "Mi" | "MiB" => 20,
        "G" | "Gi" | "GiB" => 30,
        "T" | "Ti" | "TiB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `2026-11-26 02:01:18`, UTC. Civil dates from days as in Howard Hinnant's `civil_from_days`.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_dates() {
        for (bytes, expect) in [(0, "0.00 B"), (1023, "1023.00 B"), (1536, "1.50 KiB"), (3 << 40, "3072.00 GiB")] {
            assert_eq!(size(bytes), expect);
        }
        for (text, expect) in
            [("10", Some(10)), ("2K", Some(2048)), ("1GiB", Some(1 << 30)), ("", None), ("G", None), ("1X", None)]
        {
            assert_eq!(parse_size(text), expect, "{text}");
        }
        for (seconds, expect) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_658_478, "2026-11-26 02:01:18"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expect);
        }
    }

    #[test]
    fn a_list_sums_up() {
        let item = |kind, name: &str, bytes| plain(kind, name.into(), name.into(), bytes, UNIX_EPOCH + days(1));
        let mut items = vec![
            item(Kind::Blob, "aa", 1024),
            item(Kind::Blob, "bb", 1024),
            item(Kind::Pack, "cc.zstd-3-256k.2", 2048),
        ];
        let expect = "There are 0 container file(s) using 0.00 B, 2 oci blob file(s) using 2.00 KiB and 1 layer pack(s) \
                      using 2.00 KiB of space\nTotal space used: 4.00 KiB\n";
        assert_eq!(text(&items, false), expect);
        let all = text(&items, true);
        assert!(all.contains("1970-01-02 00:00:00") && all.ends_with(expect), "{all}");
        items.push(item(Kind::Trash, "gone", 1024));
        let all = text(&items, false);
        assert!(all.contains("1 file(s) using 1.00 KiB left the cache") && all.ends_with(" 5.00 KiB\n"), "{all}");
        assert_eq!([0, 2, u64::MAX].map(|count| days(count).as_secs()), [0, 172_800, u64::MAX]);
    }
}
