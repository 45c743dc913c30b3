//! `pipe store`: where it is, what it holds, is it sound, what can go.

use std::path::PathBuf;
use std::time::Duration;

use pipe_store::{FsckOptions, FsckReport, GcOptions, GcReport, Stats, Store, StoreError};

use super::Context;
use super::error::{CliError, Exit};
use super::out::{Out, bytes};

/// Look at and care for the store
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the store's folder
    Path,
    /// Count what it holds
    Stats,
    /// Hash every object and compare; exit code 5 if something is damaged
    Fsck {
        /// Set damaged objects aside and rebuild the index from the objects
        #[arg(long)]
        repair: bool,
    },
    /// Delete what no run and no pin needs
    #[command(
        after_help = "Examples:\n  pipe store gc --dry-run\n  pipe store gc --max-age 30d --max-size 20GiB"
    )]
    Gc {
        /// Say what would go, delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Forget runs older than this: 12h, 30d
        #[arg(long, value_name = "AGE", value_parser = age)]
        max_age: Option<Duration>,
        /// Forget the oldest runs until the store fits: 500MiB, 20GiB
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
    },
    /// Write objects, records and runs to one file, for a cache of your own
    ///
    /// What does not fit --max-size is left out: the newest runs come first, of a run its smallest results first.
    #[command(
        after_help = "Examples:\n  pipe store export pipe.cache --max-size 2GB\n  pipe store export -q shard-1.cache"
    )]
    Export {
        /// The file to write
        file: PathBuf,
        /// The file's largest size: 500MiB, 2GB
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
    },
    /// Take what another store exported; only from a file you trust
    ///
    /// Every object is checked against its digest, so none can be forged. Records and runs are claims: \"this key came
    /// to these bytes\". They are believed, and steps they name are not run again. A file from elsewhere is for
    /// `pipe import`, which takes no claims. A damaged file is refused, and nothing of it is taken.
    #[command(after_help = "Example:\n  pipe store import pipe.cache")]
    Import {
        /// A file of `pipe store export`
        file: PathBuf,
    },
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let out = context.out;
    match args.command {
        Command::Path => match out.json {
            true => out.value(&serde_json::json!({ "path": context.root }))?,
            false => out.line(context.root.display().to_string())?,
        },
        Command::Stats => {
            let stats = context.open_store()?.stats()?;
            match out.json {
                true => out.value(&stats)?,
                false => out.line(summary(&stats))?,
            }
        }
        Command::Fsck { repair } => {
            let store = match Store::open(&context.root) {
                Err(StoreError::IndexDamaged { .. }) if repair => rebuild(context)?,
                opened => opened?,
            };
            let report = store.fsck(&FsckOptions { repair })?;
            match out.json {
                true => out.value(&report)?,
                false => tell_fsck(&report, out)?,
            }
            if !report.is_clean() && !report.repaired {
                return Ok(Exit::Store);
            }
        }
        Command::Export { file, max_size } => super::cache::export(&file, max_size, context)?,
        Command::Import { file } => super::cache::import(&file, context)?,
        Command::Gc { dry_run, max_age, max_size } => {
            let options = GcOptions { dry_run, max_age, max_bytes: max_size, now_ms: super::run::now_ms() };
            let report = context.open_store()?.gc(&options)?;
            match out.json {
                true => out.value(&report)?,
                false => tell_gc(&report, out)?,
            }
        }
    }
    Ok(Exit::Ok)
}

fn rebuild(context: &Context) -> Result<Store, CliError> {
    let (store, rebuilt) = Store::rebuild(&context.root)?;
    context.out.note(format!(
        "index rebuilt: {} objects, {} records, {} runs, {} pins saved",
        rebuilt.objects, rebuilt.records, rebuilt.runs, rebuilt.pins
    ));
    Ok(store)
}

/// Stats in a line.
pub fn summary(stats: &Stats) -> String {
    format!(
        "{} objects, {}; {} records, {} runs, {} pins; index {}",
        stats.inline_objects + stats.file_objects,
        bytes(stats.inline_bytes + stats.file_bytes),
        stats.records,
        stats.runs,
        stats.pins,
        bytes(stats.index_bytes)
    )
}

fn tell_fsck(report: &FsckReport, out: Out) -> Result<(), CliError> {
    out.line(format!(
        "{} objects hashed, {}; {} records",
        report.objects,
        bytes(report.bytes),
        report.records
    ))?;
    for damage in &report.damaged {
        out.line(format!("damaged  {}  {}  {}", damage.digest, damage.path.display(), damage.why))?;
    }
    report.index_problems.iter().try_for_each(|problem| out.line(format!("index    {problem}")))?;
    if !report.hollow.is_empty() {
        out.line(format!(
            "{} records without bytes: their steps run again when needed",
            report.hollow.len()
        ))?;
    }
    if !report.orphans.is_empty() {
        out.line(format!("{} unfinished files; `pipe store gc` removes them", report.orphans.len()))?;
    }
    report.strays.iter().try_for_each(|stray| out.line(format!("stray    {}", stray.display())))?;
    out.line(match (report.is_clean(), report.repaired) {
        (true, _) => "sound",
        (false, true) => "repaired; what is gone is made again when needed",
        (false, false) => "damaged; `pipe store fsck --repair` sets it aside",
    })
}

fn tell_gc(report: &GcReport, out: Out) -> Result<(), CliError> {
    for removal in &report.reasons {
        out.line(removal.to_string())?;
    }
    let verb = if report.dry_run { "would remove" } else { "removed" };
    out.line(format!(
        "{verb} {} objects, {} records, {}; keeps {} objects, {}",
        report.removed.objects,
        report.removed.records,
        bytes(report.removed.bytes),
        report.kept.objects,
        bytes(report.kept.bytes)
    ))
}

/// `12h`, `30d`, `90m`, `45s`.
fn age(text: &str) -> Result<Duration, String> {
    let bad = || "expected a number and s, m, h or d, such as 30d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(bad)
}

/// `500MiB`, `20GiB`, `1000`; a unit without `i` is decimal.
fn size(text: &str) -> Result<u64, String> {
    let bad = || "expected a number and B, KiB, MiB, GiB, kB, MB or GB, such as 20GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    number.checked_mul(unit).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86400)));
        assert_eq!(size("20GiB"), Ok(20 << 30));
        assert_eq!(size("7"), Ok(7));
        for bad in ["", "d", "1x", "é", "99999999999999999999d"] {
            assert!(age(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "1 parsec", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
